// What the attention operations share.
#pragma once

#include <algorithm>

#include "cpu_backend.h"

namespace tempora {

// Large enough for all where there is no window, small enough to be subtracted from a position.
inline std::int32_t attention_window(const AttentionShape& shape) {
  constexpr std::int32_t kAll = 1 << 30;
  return shape.window > 0 ? std::min(shape.window, kAll) : kAll;
}

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
