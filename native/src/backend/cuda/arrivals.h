// Copies to the host that are waited for later: into pinned memory, each with an event behind it.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "../recording.h"

namespace tempora {

class Arrivals {
 public:
  Arrivals() = default;
  ~Arrivals();
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  // The arrival lives no longer than this.
  std::unique_ptr<Arrival> begin(const void* device, std::size_t bytes, cudaStream_t stream);

 private:
  struct Slot {
    ~Slot();
    void* pinned = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t ended = nullptr;
  };
  class Copy;

  std::unique_ptr<Slot> take(std::size_t bytes);

  std::vector<std::unique_ptr<Slot>> free_;
  int made_ = 0;
};

}  // namespace tempora
