// The products of adapters that write a wide matrix: a narrow f32 one times a narrow f32 weight, added to what is
// there. They read and write that once, 16 bytes a lane, and nothing else of its size.
#pragma once

#include "dropout.cuh"
#include "narrow_parts.cuh"
#include "tiles.cuh"

namespace tempora::device {

constexpr int kWidenColumns = 32 * kTileWarps;  // of a block

// Rows of a block, 16 at a time: as many as their old numbers have registers beside the weight's.
template <int rank>
constexpr int kWidenSteps = rank == 64 ? 2 : 4;

struct WidenNumbers {
  std::int64_t narrow_row, out_row;  // elements from a row to the next
  int rows, cols, rank;              // out [rows, cols]
  // The narrow matrix is factor · Σ of so many, one behind the other, as add_product_splits_kernel takes it.
  int splits = 1;
  float factor = 1;
};

// Eight neighbours of a row.
template <typename Out>
struct Eight;

template <>
struct Eight<float> {
  float4 low, high;

  __device__ void load(const float* from) {
    low = *reinterpret_cast<const float4*>(from);
    high = *reinterpret_cast<const float4*>(from + 4);
  }
  __device__ void store_sum(float* to, const float (&more)[8]) const {
    *reinterpret_cast<float4*>(to) = make_float4(low.x + more[0], low.y + more[1], low.z + more[2], low.w + more[3]);
    *reinterpret_cast<float4*>(to + 4) =
        make_float4(high.x + more[4], high.y + more[5], high.z + more[6], high.w + more[7]);
  }
};

template <>
struct Eight<bf16> {
  uint4 pairs;

  __device__ void load(const bf16* from) { pairs = *reinterpret_cast<const uint4*>(from); }
  __device__ void store_sum(bf16* to, const float (&more)[8]) const {
    *reinterpret_cast<uint4*>(to) = uint4{added(pairs.x, more[0], more[1]), added(pairs.y, more[2], more[3]),
                                          added(pairs.z, more[4], more[5]), added(pairs.w, more[6], more[7])};
  }

 private:
  __device__ static std::uint32_t added(std::uint32_t pair, float low, float high) {
    return pack(low_half(pair) + low, high_half(pair) + high);
  }
};

// B's fragment of a weight [cols, rank], or [rank, cols] where `transposed`: ranks [k, k + 16), and the columns that
// tile `tile` of four has of the 32 from `column` on: two of each eight, so that a lane's sums of all four are
// neighbours.
template <bool transposed>
__device__ inline NarrowB wide_fragment(const float* weight, const WidenNumbers& n, int k, int column, int tile) {
  const int lane = threadIdx.x % kWarp, group = lane / 4;
  const int at = column + group / 2 * 8 + tile * 2 + group % 2;
  NarrowB b;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = k + lane % 4 * 2 + 8 * half;
    const bool there = first < n.rank && at < n.cols;  // the rank is even
    float low = 0, high = 0;
    if (there && transposed) {
      low = weight[static_cast<std::int64_t>(first) * n.cols + at];
      high = weight[static_cast<std::int64_t>(first + 1) * n.cols + at];
    } else if (there) {
      const float2 pair = *reinterpret_cast<const float2*>(weight + static_cast<std::int64_t>(at) * n.rank + first);
      low = pair.x;
      high = pair.y;
    }
    b.set(half, low, high);
  }
  return b;
}

// A's fragment of a narrow matrix: rows [row, row + 16), ranks [k, k + 16).
__device__ inline NarrowA row_fragment(const float* narrow, const WidenNumbers& n, int row, int k) {
  const int lane = threadIdx.x % kWarp;
  float low[4] = {}, high[4] = {};
#pragma unroll 1
  for (int split = 0; split < n.splits; ++split) {
    const float* from = narrow + split * n.rows * n.narrow_row;
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int r = row + lane / 4 + word % 2 * 8, first = k + lane % 4 * 2 + word / 2 * 8;
      if (r >= n.rows || first >= n.rank) continue;
      const float2 pair = *reinterpret_cast<const float2*>(from + r * n.narrow_row + first);
      low[word] += pair.x;
      high[word] += pair.y;
    }
  }
  NarrowA a;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    // Rounded here: as a part of the next subtraction it would have other bits than a matrix that was written.
    a.set(word, __fmul_rn(n.factor, low[word]), __fmul_rn(n.factor, high[word]));
  }
  return a;
}

// out (+)= narrow · weightᵀ, dropped as the rows of out are. Each element's sum is the same whatever the rows beside
// it. Grid: (tiles of columns, tiles of rows). A warp has 32 columns, a lane eight neighbours of rows g and g + 8.
template <int rank, bool transposed, bool dropped, typename Out>
__global__ void __launch_bounds__(kTileThreads) widen_kernel(WidenNumbers n, const float* narrow, const float* weight,
                                                             DropoutView dropout, Out* out, bool accumulate) {
  constexpr int kSteps = kWidenSteps<rank>, kTiles = 4;
  const int lane = threadIdx.x % kWarp;
  const int first_column = static_cast<int>(blockIdx.x) * kWidenColumns + static_cast<int>(threadIdx.x) / kWarp * 32;
  const int first_row = static_cast<int>(blockIdx.y) * 16 * kSteps;
  const int column = first_column + lane % 4 * 8;
  const auto row_of = [&](int step, int half) { return first_row + 16 * step + lane / 4 + 8 * half; };
  const auto is_there = [&](int row) { return row < n.rows && column < n.cols; };  // whole eights

  Eight<Out> old[kSteps][2] = {};
#pragma unroll
  for (int at = 0; at < 2 * kSteps; ++at) {
    const int row = row_of(at / 2, at % 2);
    if (accumulate && is_there(row)) old[at / 2][at % 2].load(out + row * n.out_row + column);
  }
  NarrowB b[rank / 16][kTiles];
#pragma unroll
  for (int k = 0; k < rank / 16; ++k) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      b[k][tile] = wide_fragment<transposed>(weight, n, 16 * k, first_column, tile);
    }
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    float sums[kTiles][4] = {};
#pragma unroll
    for (int k = 0; k < rank / 16; ++k) {
      const NarrowA a = row_fragment(narrow, n, first_row + 16 * step, 16 * k);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) multiply(sums[tile], a, b[k][tile]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_of(step, half);
      float more[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) more[i] = sums[i / 2][half * 2 + i % 2];
      if constexpr (dropped) {
        const std::uint64_t words[2] = {dropout.word(row, column), dropout.word(row, column + 4)};
#pragma unroll
        for (int i = 0; i < 8; ++i) more[i] = dropout.keeps(words[i / 4], i) ? more[i] * dropout.scale : 0.0f;
      }
      if (is_there(row)) old[step][half].store_sum(out + row * n.out_row + column, more);
    }
  }
}

}  // namespace tempora::device
