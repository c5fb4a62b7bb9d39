// How dimension i and i + C/2 of a head turn by position · frequency[i].
#pragma once

#include "vectors.cuh"

namespace tempora::device {

constexpr int kLargestHalf = 256;

// Of one position; in shared memory.
struct alignas(16) Turns {
  float sine[kLargestHalf], cosine[kLargestHalf];

  // By all threads of a block, which wait before they read.
  __device__ void fill(std::int32_t position, const float* frequencies, int half, float direction) {
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
      // The angle is rounded to f32 before its sine and cosine, as transformers computes them.
      const float angle = static_cast<float>(position) * frequencies[i];
      float s, c;
      sincosf(angle, &s, &c);
      sine[i] = s * direction;
      cosine[i] = c;
    }
  }
};

// One rounding is named, so that every kernel that turns gives the same bits, however it is compiled.
__device__ inline float turned_low(float low, float high, float sine, float cosine) {
  return fmaf(low, cosine, -(high * sine));
}
__device__ inline float turned_high(float low, float high, float sine, float cosine) {
  return fmaf(high, cosine, low * sine);
}

}  // namespace tempora::device
