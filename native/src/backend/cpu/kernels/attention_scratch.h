// What the attention kernels share beside their products.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempora::TEMPORA_ISA {

// Stands for a score that a row must not see; far below any score, far above what exp2 takes.
constexpr float kHiddenScore = -1e30f;
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// What queries are multiplied by, so that a score's exponential is exp2.
inline float scaled_for_exp2(int head_dim) { return kLog2E / __builtin_sqrtf(static_cast<float>(head_dim)); }

inline void clear(float* x, std::int64_t n) { __builtin_memset(x, 0, static_cast<std::size_t>(n) * sizeof(float)); }

// Hands out pieces of a thread's scratch, aligned to 64 bytes; with no base, it only counts.
class ScratchCursor {
 public:
  explicit ScratchCursor(float* base) : base_(base) {}

  float* take(std::int64_t floats) {
    float* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (floats + 15) / 16 * 16;
    return at;
  }
  std::int64_t used() const { return used_; }

 private:
  float* base_;
  std::int64_t used_ = 0;
};

}  // namespace tempora::TEMPORA_ISA
