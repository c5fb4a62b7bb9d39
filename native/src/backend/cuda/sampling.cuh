// A row of logits as the sampler's kernels see it. Masses are whole numbers, so that their sums do not depend on the
// order in which they are added: histograms may be filled by atomics, and a walk ends exactly where the sums say.
#pragma once

#include "device.cuh"

namespace tempora::device {

using Rank = unsigned long long;
using Mass = unsigned long long;

constexpr int kVectorFloats = 4;
// A bin holds the logits of a stretch of 1 / kBinsPerUnit, in units of the temperature, from the largest down. Past the
// last bin but one a token has no mass.
constexpr int kBins = 2048;
constexpr float kBinsPerUnit = 72;
constexpr int kMassBits = 40;  // the likeliest token has mass 2^40

struct alignas(16) FourFloats {
  float at[kVectorFloats];
};

// Four logits from `id` on; behind the vocabulary -infinity.
__device__ inline FourFloats load_four(const float* logits, int id, int vocabulary, bool aligned) {
  if (aligned && id + kVectorFloats <= vocabulary) return *reinterpret_cast<const FourFloats*>(logits + id);
  FourFloats four;
#pragma unroll
  for (int i = 0; i < kVectorFloats; ++i) four.at[i] = id + i < vocabulary ? logits[id + i] : -INFINITY;
  return four;
}

// Larger for likelier tokens; distinct: equal logits rank by id, the lowest first. Adding 0 makes -0 the 0 that it
// equals.
__device__ inline Rank rank_of(float logit, int id) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);
  const std::uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<Rank>(ordered) << 32 | static_cast<std::uint32_t>(~id);
}

struct SampledRow {
  const float* logits;
  int vocabulary;
  bool aligned;  // to 16 bytes
  float scale;   // 1 / temperature
  float largest;

  __device__ FourFloats four(int id) const { return load_four(logits, id, vocabulary, aligned); }
  __device__ int bin(float logit) const {
    return static_cast<int>(fminf((largest - logit) * scale * kBinsPerUnit, kBins - 1));
  }
  // 2^40 exp((logit - largest) / temperature) without its fraction: by the float's own bits, because conversions to 64
  // bits are slow.
  __device__ Mass mass(float logit) const {
    const std::uint32_t bits = __float_as_uint(expf((logit - largest) * scale));
    const int shift = static_cast<int>(bits >> 23) - (127 + 23 - kMassBits);
    const Mass mantissa = (bits & 0x7fffffu) | 0x800000u;
    return shift >= 0 ? mantissa << shift : mantissa >> min(-shift, 63);
  }
};

__device__ inline Mass warp_sum(Mass value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Masses that threads add to in any order: the low and the high words by atomics of 32 bits, which shared memory has.
struct MassHistogram {
  std::uint32_t *low, *high;

  __device__ void add(int bin, Mass mass) const {
    const auto low_part = static_cast<std::uint32_t>(mass);
    const std::uint32_t before = atomicAdd(low + bin, low_part);
    const std::uint32_t carry = before + low_part < before ? 1 : 0;
    const std::uint32_t high_part = static_cast<std::uint32_t>(mass >> 32) + carry;
    if (high_part != 0) atomicAdd(high + bin, high_part);
  }
  __device__ Mass sum(int bin) const { return static_cast<Mass>(high[bin]) << 32 | low[bin]; }
};

}  // namespace tempora::device
