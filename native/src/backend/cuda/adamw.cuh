// What the kernels of the optimizer share.
#pragma once

#include "../../forest/random.h"
#include "../adamw.h"
#include "vectors.cuh"

namespace tempora::device {

// Elements of a tensor that one block of threads steps. Every chunk is of one tensor.
constexpr std::int64_t kStepChunk = 16 * kBlock;

// Of `tensors`, none of them empty, the one that a chunk belongs to.
template <typename Tensor>
__device__ const Tensor& tensor_of(const Tensor* tensors, int count, std::int64_t chunk) {
  int first = 0;
  for (int end = count; end - first > 1;) {
    const int middle = (first + end) / 2;
    if (tensors[middle].first_chunk <= chunk) {
      first = middle;
    } else {
      end = middle;
    }
  }
  return tensors[first];
}

// Rounds to bf16 up or down with the probability that makes the expectation the value itself. The CPU's kernel draws
// the same 16 bits for an element: four elements share a word.
__device__ inline bf16 round_stochastically(float value, std::uint64_t word, int element) {
  const std::uint32_t noise = static_cast<std::uint32_t>(word >> (16 * element)) & 0xffffu;
  const std::uint32_t bits = __float_as_uint(value);
  // Infinity and NaN stay what they are.
  const std::uint32_t rounded = (bits & 0x7f800000u) == 0x7f800000u ? bits : bits + noise;
  return __ushort_as_bfloat16(static_cast<unsigned short>(rounded >> 16));
}

// Elements [element, element + 4) from p on.
__device__ inline void store_four(float* p, const float (&x)[4], std::uint64_t, std::int64_t) { store_vector(p, x); }
__device__ inline void store_four(bf16* p, const float (&x)[4], std::uint64_t key, std::int64_t element) {
  const std::uint64_t word = combine_key(key, static_cast<std::uint64_t>(element / 4));
  Vector<bf16, 4> rounded;
#pragma unroll
  for (int i = 0; i < 4; ++i) rounded.at[i] = round_stochastically(x[i], word, i);
  *reinterpret_cast<Vector<bf16, 4>*>(p) = rounded;
}

__device__ inline void store_one(float* p, float value, std::uint64_t, std::int64_t) { *p = value; }
__device__ inline void store_one(bf16* p, float value, std::uint64_t key, std::int64_t element) {
  *p = round_stochastically(value, combine_key(key, static_cast<std::uint64_t>(element / 4)),
                            static_cast<int>(element % 4));
}

// m and v of one element, brought up to date; returns the weight. adamw.h has the formula.
__device__ inline float updated(float weight, float gradient, float& m, float& v, const AdamWScalars& s) {
  const float g = gradient * s.gradient_scale;
  m = m + (g - m) * s.one_minus_beta1;
  v = v * s.beta2 + g * g * s.one_minus_beta2;
  const float denominator = sqrtf(v) / s.second_root_correction + s.epsilon;
  return weight * s.keep - s.step_size * (m / denominator);
}

template <typename T, typename M>
struct StepTensor {
  __device__ StepTensor in_global() const {
    StepTensor located = *this;
    located.weight = device::in_global(weight);
    located.gradient = device::in_global(gradient);
    located.first = device::in_global(first);
    located.second = device::in_global(second);
    return located;
  }

  T* weight;
  const float* gradient;
  M* first;
  M* second;
  float* scales;  // of moments in 8 bits: those of first, then those of second
  std::int64_t moments_blocks;
  std::int64_t size;
  std::int64_t first_chunk;  // chunks of the tensors before it
  AdamWScalars scalars;
};

}  // namespace tempora::device
