// Working memory of operations whose threads each need some.
#pragma once

#include "cpu_backend.h"

namespace tempora {

// One piece of scratch for each thread.
class ThreadScratch {
 public:
  ThreadScratch(CpuBackend& backend, std::int64_t floats)
      : floats_((floats + 15) / 16 * 16),
        buffer_(backend.workspace(static_cast<std::size_t>(floats_ * backend.threads()) * sizeof(float))) {}
  float* of(int thread) const { return static_cast<float*>(buffer_.data()) + thread * floats_; }

 private:
  std::int64_t floats_;
  Buffer buffer_;
};

}  // namespace tempora
