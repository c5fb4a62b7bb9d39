// The device's memory for all engines of the process: segments that cudaMalloc gave, cut into blocks and joined again.
//
// A block that was given back serves its stream again at once, since what is queued there comes before whatever the
// next owner queues. Other streams get it where the device has no more: what is queued on its own is waited for then.
// While a stream is captured nobody waits for it, which would end the capture, or asks the device for memory or gives
// it back, which waits for the whole device: a capture ends soon, and then they go on.
//
// Not cudaMallocAsync: while a stream is captured it makes nodes of the graph, whose memory is the graph's own; and
// here a block costs a look into a tree, there a call of the driver.
#pragma once

#include <cuda_runtime.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

namespace tempora {

class DevicePool {
 public:
  // The one of this process, which lives as long as that does: the runtime may be gone when statics are.
  static DevicePool& instance();

  struct Taken {
    void* data = nullptr;  // null where there is no room, not even by giving back what nobody uses
    std::size_t bytes = 0;
  };
  Taken take(std::size_t bytes, cudaStream_t stream);
  std::size_t give_back(void* data, cudaStream_t stream) noexcept;  // its bytes

  // A stream is known from before its first block until it has ended all its work and gives no block back any more.
  void open(cudaStream_t stream);
  void close(cudaStream_t stream) noexcept;

  // Between these the stream's own thread takes nothing.
  void begin_capture(cudaStream_t stream);
  void end_capture(cudaStream_t stream) noexcept;

  // Gives the device all that nobody uses and that no stream other than this one may still use.
  void give_device_unused(cudaStream_t stream) noexcept;
  std::size_t cached() const;  // bytes of segments that nobody uses

 private:
  // Blocks of large and small segments do not mix, so that a small one holds no large segment. `stream` is the one
  // whose work may still use the block; 0: none.
  struct FreeBlock {
    bool large;
    std::uintptr_t stream;
    std::size_t bytes;
    std::uintptr_t data;
    auto key() const { return std::tie(large, stream, bytes, data); }
    bool operator<(const FreeBlock& other) const { return key() < other.key(); }
  };
  using FreeBlocks = std::set<FreeBlock>;
  struct Block {
    std::size_t bytes = 0;
    std::uintptr_t segment = 0;   // where that begins
    FreeBlocks::iterator at;      // of a free one
    FreeBlocks::node_type entry;  // of one in use: kept, so that giving it back asks for no memory
    bool free() const { return entry.empty(); }
  };
  using Blocks = std::map<std::uintptr_t, Block>;

  FreeBlocks::iterator best_fit(bool large, std::uintptr_t stream, std::size_t bytes);
  FreeBlocks::iterator fitting(bool large, cudaStream_t stream, std::size_t bytes);
  Taken cut(FreeBlocks::iterator found, std::size_t bytes, cudaStream_t stream);
  void add_free(std::uintptr_t data, std::size_t bytes, std::uintptr_t segment, bool large, cudaStream_t stream);
  bool grow(bool large, cudaStream_t stream, std::size_t bytes);
  void wait_for_captures(std::unique_lock<std::mutex>& lock) noexcept;
  void reclaim(cudaStream_t stream) noexcept;
  void join(Blocks::iterator block) noexcept;
  void join_next(Blocks::iterator block) noexcept;
  void drop_segments(bool small_ones_too) noexcept;

  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::size_t> segments_;  // their bytes
  Blocks blocks_;                                   // all of them, by where they begin
  FreeBlocks free_;
  std::set<cudaStream_t> streams_, captured_;
  std::condition_variable capture_ended_;
};

}  // namespace tempora
