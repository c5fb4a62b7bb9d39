// f32 numbers for tensor cores, which take bf16: each as the sum of three bf16, which hold all of its 24 bits. A
// product with a bf16 number is then exact in three products, one of two f32 numbers as good as rounded in six.
#pragma once

#include <mma.cuh>

#include "device.cuh"

namespace tempora::device {

__device__ inline float low_half(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

constexpr int kParts = 3;

// Two numbers as parts[0] + parts[1] + parts[2], `low` in the low halves.
__device__ inline void split(std::uint32_t (&parts)[kParts], float low, float high) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    parts[i] = pack(low, high);
    low -= low_half(parts[i]);
    high -= high_half(parts[i]);
  }
}

// The parts of a fragment of so many words.
template <int words>
struct NarrowFragment {
  std::uint32_t of[kParts][words];

  __device__ void set(int word, float low, float high) {
    std::uint32_t parts[kParts];
    split(parts, low, high);
#pragma unroll
    for (int i = 0; i < kParts; ++i) of[i][word] = parts[i];
  }
};
using NarrowA = NarrowFragment<4>;
using NarrowB = NarrowFragment<2>;

// The smallest parts first.
__device__ inline void multiply(float (&c)[4], const std::uint32_t (&a)[4], const NarrowB& b) {
#pragma unroll
  for (int i = kParts - 1; i >= 0; --i) mma(c, a, b.of[i][0], b.of[i][1]);
}

__device__ inline void multiply(float (&c)[4], const NarrowA& a, std::uint32_t b0, std::uint32_t b1) {
#pragma unroll
  for (int i = kParts - 1; i >= 0; --i) mma(c, a.of[i], b0, b1);
}

// Without the parts' products that lie below the last bit of the largest.
__device__ inline void multiply(float (&c)[4], const NarrowA& a, const NarrowB& b) {
#pragma unroll
  for (int sum = kParts - 1; sum >= 0; --sum) {
#pragma unroll
    for (int i = 0; i <= sum; ++i) mma(c, a.of[i], b.of[sum - i][0], b.of[sum - i][1]);
  }
}

}  // namespace tempora::device
