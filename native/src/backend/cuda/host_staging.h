// Copies from ordinary host memory, queued on a stream: the bytes go through pinned memory of our own, so that the
// caller may reuse its memory as soon as the call returns.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace tempora {

class HostStaging {
 public:
  HostStaging();  // throws OutOfMemory when the host has no memory to pin
  ~HostStaging();
  HostStaging(const HostStaging&) = delete;
  HostStaging& operator=(const HostStaging&) = delete;

  static constexpr std::size_t kBytes = std::size_t{8} << 20;

  void copy_in(void* device, const void* host, std::size_t bytes, cudaStream_t stream);

 private:
  // Halves are filled in turn; a half is reused when the copies out of it have ended.
  static constexpr int kHalves = 2;
  static constexpr std::size_t kHalfBytes = kBytes / kHalves;

  void take_next_half(cudaStream_t stream);
  void release() noexcept;

  char* pinned_ = nullptr;
  cudaEvent_t ended_[kHalves] = {};
  int half_ = 0;
  std::size_t used_ = 0;  // bytes of the current half
};

}  // namespace tempora
