// Recordings as CUDA graphs: hundreds of kernels are launched by one call.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "../backend.h"

namespace tempora {

class CudaBackend;

// The memory that operations take while they are recorded: their graphs know where it lies. All recordings share it,
// since they run one after another on one stream.
class RecordedMemory {
 public:
  enum class Mode { off, counting, serving };

  Mode mode() const { return mode_; }
  void begin(Mode mode);
  void end() { mode_ = Mode::off; }
  // Counts operations that run while they are not recorded yet, by the places that what they take will have. What was
  // not taken meanwhile may be released too.
  void count_taken(const void* data, std::size_t bytes);
  void count_released(const void* data) { forget(data); }
  // Where the furthest of those places ends.
  std::size_t counted() const { return most_; }

  // Of operations that are being recorded. Null where more is asked for than was reserved.
  void* take(std::size_t bytes);
  bool give_back(const void* data);  // false for what was not taken here
  bool in_use() const { return !taken_.empty(); }

  // Room for so many bytes, from the first recording until the last one is gone.
  void reserve(CudaBackend& backend, std::size_t bytes);
  void add_recording() { ++recordings_; }
  void drop_recording() noexcept;

 private:
  struct Place {
    std::size_t begin, end;
    const void* data;
  };

  // The first gap among what is taken: the same for operations that are counted and that are recorded.
  std::size_t gap_for(std::size_t bytes) const;
  void add(std::size_t begin, std::size_t bytes, const void* data);
  void forget(const void* data);
  static std::size_t padded(std::size_t bytes) { return (std::max<std::size_t>(1, bytes) + 511) / 512 * 512; }

  Mode mode_ = Mode::off;
  std::vector<Place> taken_;  // of the last block, in order
  std::size_t most_ = 0;
  std::vector<Buffer> blocks_;  // the last one serves; those before it are known to graphs
  int recordings_ = 0;
};

// The first run only asks, and so makes what is made once; the second counts memory; the third is captured and launched
// as all later ones are.
class CudaRecording : public Recording {
 public:
  CudaRecording(CudaBackend& backend, cudaStream_t stream, RecordedMemory& memory, std::function<void()> operations);
  ~CudaRecording() override;
  void run() override;

 private:
  void count();
  void capture();

  CudaBackend& backend_;
  cudaStream_t stream_;
  RecordedMemory& memory_;
  std::function<void()> operations_;
  int runs_ = 0;
  std::size_t bytes_ = 0;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace tempora
