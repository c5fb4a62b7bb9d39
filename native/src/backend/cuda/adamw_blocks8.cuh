// AdamW with moments in 8 bits: codes of a dynamic map, with a scale for each block of 256 numbers.
#pragma once

#include "../dynamic_map.h"
#include "adamw.cuh"

namespace tempora::device {

// The parts of the two maps that are looked up for every number.
struct SharedMaps {
  float values[2][256], midpoints[2][256];

  __device__ void fill(const DynamicMap* maps) {
    for (int i = threadIdx.x; i < 2 * 256; i += kBlock) {
      values[i / 256][i % 256] = maps[i / 256].values[i % 256];
      midpoints[i / 256][i % 256] = maps[i / 256].midpoints[i % 256];
    }
  }
  // As DynamicMap::code_of.
  __device__ std::uint32_t code_of(const DynamicMap* maps, int map, float x) const {
    const std::uint32_t code = maps[map].first_code[__float_as_uint(x) >> 16];
    return code + (x > midpoints[map][code] ? 1 : 0);
  }
};

// Four codes in a word: structs of bytes the compiler takes apart.
__device__ inline std::uint32_t load_codes(const std::uint8_t* from, std::int64_t left) {
  if (whole_vector<std::uint8_t, 4>(from, left)) return *reinterpret_cast<const std::uint32_t*>(from);
  std::uint32_t codes = 0;
  for (int k = 0; k < 4 && k < left; ++k) codes |= std::uint32_t{from[k]} << 8 * k;
  return codes;
}

__device__ inline void store_codes(std::uint8_t* to, std::int64_t left, std::uint32_t codes) {
  if (whole_vector<std::uint8_t, 4>(to, left)) {
    *reinterpret_cast<std::uint32_t*>(to) = codes;
    return;
  }
  for (int k = 0; k < 4 && k < left; ++k) to[k] = static_cast<std::uint8_t>(codes >> 8 * k);
}

// A lane's four numbers of a half of a block, and how many of them there are.
struct FourMoments {
  std::int64_t first;
  std::int64_t left;
  float m[4], v[4];
};

template <typename T>
__device__ inline void step_moments(const StepTensor<T, std::uint8_t>& tensor, const AdamWScalars& s,
                                    const SharedMaps& maps, float first_scale, float second_scale, FourMoments& at) {
  const std::int64_t i = at.first, left = at.left;
  const std::uint32_t first = load_codes(tensor.first + i, left), second = load_codes(tensor.second + i, left);
  float weight[4], gradient[4];
  load_part(tensor.weight + i, left, weight);
  load_part(tensor.gradient + i, left, gradient);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    at.m[k] = maps.values[0][first >> 8 * k & 0xffu] * first_scale;
    at.v[k] = maps.values[1][second >> 8 * k & 0xffu] * second_scale;
    weight[k] = updated(weight[k], gradient[k], at.m[k], at.v[k], s);
    if (k >= left) at.m[k] = at.v[k] = 0;
  }
  if (whole_vector<T, 4>(tensor.weight + i, left)) return store_four(tensor.weight + i, weight, s.rounding_key, i);
  for (int k = 0; k < 4 && k < left; ++k) store_one(tensor.weight + i + k, weight[k], s.rounding_key, i + k);
}

// Each warp of a block takes blocks of moments of its own: eight numbers a lane.
template <typename T>
__global__ void __launch_bounds__(kBlock, 3)
    adamw_blocks8_kernel(const StepTensor<T, std::uint8_t>* tensors, int count, const DynamicMap* maps) {
  constexpr int kHalf = static_cast<int>(kMomentsBlock) / 2;
  static_assert(kHalf == 4 * kWarp && kStepChunk % kMomentsBlock == 0);
  __shared__ SharedMaps shared;
  shared.fill(maps);
  __syncthreads();
  const StepTensor<T, std::uint8_t> tensor = tensor_of(tensors, count, blockIdx.x).in_global();
  const AdamWScalars s = tensor.scalars;
  const std::int64_t begin = (blockIdx.x - tensor.first_chunk) * kStepChunk;
  const std::int64_t end = begin + kStepChunk < tensor.size ? begin + kStepChunk : tensor.size;
  const int lane = threadIdx.x % kWarp;
  for (std::int64_t block = begin / kMomentsBlock + threadIdx.x / kWarp;
       block * static_cast<std::int64_t>(kMomentsBlock) < end; block += kBlock / kWarp) {
    float *first_scale = tensor.scales + block, *second_scale = first_scale + tensor.moments_blocks;
    FourMoments halves[2];
    float largest_m = 0, largest_v = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      FourMoments& at = halves[half];
      at.first = block * static_cast<std::int64_t>(kMomentsBlock) + half * kHalf + 4 * lane;
      at.left = end - at.first;
      step_moments(tensor, s, shared, *first_scale, *second_scale, at);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        largest_m = fmaxf(largest_m, fabsf(at.m[k]));
        largest_v = fmaxf(largest_v, at.v[k]);
      }
    }
    largest_m = warp_max(largest_m);
    largest_v = warp_max(largest_v);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const FourMoments& at = halves[half];
      std::uint32_t first = 0, second = 0;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        first |= shared.code_of(maps, 0, largest_m == 0 ? 0.0f : at.m[k] / largest_m) << 8 * k;
        second |= shared.code_of(maps, 1, largest_v == 0 ? 0.0f : at.v[k] / largest_v) << 8 * k;
      }
      store_codes(tensor.first + at.first, at.left, first);
      store_codes(tensor.second + at.first, at.left, second);
    }
    __syncwarp();
    if (lane == 0) {
      *first_scale = largest_m;
      *second_scale = largest_v;
    }
  }
}

}  // namespace tempora::device
