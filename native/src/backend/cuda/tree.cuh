// A forest's geometry on the device, as tree attention walks it.
#pragma once

#include <cmath>
#include <stdexcept>
#include <string>

#include "device.cuh"

namespace tempora::device {

struct TreeView {
  const std::int32_t* node_of;     // [T]
  const std::int32_t* position;    // [T]
  const std::int32_t* node_start;  // [N + 1]
  const std::int32_t* path_start;  // [N + 1] node n's ancestors and itself are path[path_start[n] ...], root first
  const std::int32_t* path;
  const std::int32_t* below_start;  // [N + 1] node n's descendants, without itself, ascending
  const std::int32_t* below;
};

struct AttentionNumbers {
  int tokens, heads, kv_heads, head_dim, window;
  float scale;  // 1/sqrt(C)

  __device__ int group() const { return heads / kv_heads; }
};

// A head's vector spread over the lanes of a warp: lane l holds dimensions l, l + 32, ... Larger heads are refused by
// the host.
constexpr int kLaneValues = 8;
constexpr int kLargestHead = kLaneValues * kWarp;

inline AttentionNumbers numbers_of(const AttentionShape& shape, std::int64_t tokens) {
  if (shape.head_dim > kLargestHead) {
    throw std::invalid_argument("the CUDA backend supports a head dimension of up to " + std::to_string(kLargestHead) +
                                ", not " + std::to_string(shape.head_dim));
  }
  return {
      static_cast<int>(tokens), shape.heads,  shape.kv_heads,
      shape.head_dim,           shape.window, static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)))};
}

template <typename T>
__device__ inline void load_head(const T* from, int head_dim, float (&out)[kLaneValues]) {
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = i * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    out[i] = d < head_dim ? load(from + d) : 0.0f;
  }
}

template <typename T>
__device__ inline void store_head(T* to, int head_dim, const float (&values)[kLaneValues]) {
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = i * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    if (d < head_dim) store(to + d, values[i]);
  }
}

__device__ inline float dot_heads(const float (&a)[kLaneValues], const float (&b)[kLaneValues]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) sum += a[i] * b[i];
  return warp_sum(sum);
}

__device__ inline void add_scaled(float (&to)[kLaneValues], float factor, const float (&from)[kLaneValues]) {
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) to[i] += factor * from[i];
}

// Softmax over keys that arrive one after another.
struct OnlineSoftmax {
  float largest = -INFINITY;
  float sum = 0;
  float out[kLaneValues] = {};

  __device__ void add(float score, const float (&value)[kLaneValues]) {
    const float now = fmaxf(largest, score);
    const float shrink = expf(largest - now), weight = expf(score - now);
    sum = sum * shrink + weight;
    for (int i = 0; i < kLaneValues; ++i) out[i] = out[i] * shrink + weight * value[i];
    largest = now;
  }
  __device__ void finish() {
    for (float& value : out) value /= sum;
  }
  __device__ float log_sum() const { return largest + logf(sum); }
};

}  // namespace tempora::device
