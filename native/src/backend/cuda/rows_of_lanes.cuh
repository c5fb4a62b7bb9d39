// A row of numbers in the registers of the threads that share it: a part of a warp, or a whole block.
#pragma once

#include "vectors.cuh"

namespace tempora::device {

// Each of `lanes` threads has `vectors` times n numbers of the row, 0 behind its end. All lanes of a warp (threads of a
// block) take part, those without a row too.
template <int lanes, int vectors, int n>
struct RowOfLanes {
  float at[vectors][n];

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % lanes; }
  __device__ static int column(int vector) { return (vector * lanes + lane()) * n; }

  template <typename T>
  __device__ void load(const T* row, int width) {
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      if (column(v) < width) {
        load_vector(row + column(v), at[v]);
      } else {
        for (float& number : at[v]) number = 0;
      }
    }
  }

  template <typename T>
  __device__ void store(T* row, int width) const {
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      if (column(v) < width) store_vector(row + column(v), at[v]);
    }
  }

  __device__ static float sum(float value) {
    if constexpr (lanes > kWarp) {
      return block_sum(value);
    } else {
      for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
      return value;
    }
  }

  // 1 / sqrt(mean(x²) + eps), in every lane.
  __device__ float rstd(int width, float eps) const {
    float squares = 0;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
#pragma unroll
      for (int i = 0; i < n; ++i) squares = fmaf(at[v][i], at[v][i], squares);
    }
    return 1.0f / sqrtf(sum(squares) / static_cast<float>(width) + eps);
  }

  // x · rstd · weight
  template <typename W>
  __device__ void normalise(float rstd, const W* weight, int width) {
    RowOfLanes weights;
    weights.load(weight, width);
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
#pragma unroll
      for (int i = 0; i < n; ++i) at[v][i] = at[v][i] * rstd * weights.at[v][i];
    }
  }
};

// Threads of a block for a row of `width` that no registers hold: whole warps, no more than there is work for.
inline int threads_for(int width) { return width < kBlock ? (width + kWarp - 1) / kWarp * kWarp : kBlock; }

// Threads of a warp that share a row of `vectors` vectors: a power of two, 0 where a warp is too small.
inline int lanes_for(std::int64_t vectors) {
  int lanes = 1;
  while (lanes < vectors) lanes *= 2;
  return lanes <= kWarp ? lanes : 0;
}

// Calls work.operator()<lanes>() for the number of lanes that lanes_for gives.
template <typename Work>
void with_lanes(int lanes, Work work) {
  switch (lanes) {
    case 1:
      return work.template operator()<1>();
    case 2:
      return work.template operator()<2>();
    case 4:
      return work.template operator()<4>();
    case 8:
      return work.template operator()<8>();
    case 16:
      return work.template operator()<16>();
    default:
      return work.template operator()<32>();
  }
}

// Vectors of each thread of a block that has a row by itself: 1, 2, 4 or 8, 0 where they are too few.
inline int vectors_for(std::int64_t vectors) {
  int of_thread = 1;
  while (of_thread * kBlock < vectors) of_thread *= 2;
  return of_thread <= 8 ? of_thread : 0;
}

template <typename Work>
void with_vectors(int vectors, Work work) {
  switch (vectors) {
    case 1:
      return work.template operator()<1>();
    case 2:
      return work.template operator()<2>();
    case 4:
      return work.template operator()<4>();
    default:
      return work.template operator()<8>();
  }
}

}  // namespace tempora::device
