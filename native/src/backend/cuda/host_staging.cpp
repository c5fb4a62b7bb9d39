#include "host_staging.h"

#include <algorithm>
#include <cstring>

#include "check.h"

namespace tempora {

HostStaging::HostStaging() {
  try {
    void* pinned = nullptr;
    TEMPORA_CUDA_CHECK(cudaMallocHost(&pinned, kBytes));
    pinned_ = static_cast<char*>(pinned);
    for (cudaEvent_t& event : ended_) TEMPORA_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  } catch (...) {
    release();
    throw;
  }
}

HostStaging::~HostStaging() { release(); }

void HostStaging::release() noexcept {
  for (cudaEvent_t event : ended_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (pinned_ != nullptr) cudaFreeHost(pinned_);
}

void HostStaging::take_next_half(cudaStream_t stream) {
  TEMPORA_CUDA_CHECK(cudaEventRecord(ended_[half_], stream));
  half_ = (half_ + 1) % kHalves;
  // Returns at once for a half that was never used.
  TEMPORA_CUDA_CHECK(cudaEventSynchronize(ended_[half_]));
  used_ = 0;
}

void HostStaging::copy_in(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
  const char* from = static_cast<const char*>(host);
  char* to = static_cast<char*>(device);
  while (bytes > 0) {
    if (used_ == kHalfBytes) take_next_half(stream);
    const std::size_t part = std::min(bytes, kHalfBytes - used_);
    char* staged = pinned_ + static_cast<std::size_t>(half_) * kHalfBytes + used_;
    std::memcpy(staged, from, part);
    TEMPORA_CUDA_CHECK(cudaMemcpyAsync(to, staged, part, cudaMemcpyHostToDevice, stream));
    used_ += part;
    from += part;
    to += part;
    bytes -= part;
  }
}

}  // namespace tempora
