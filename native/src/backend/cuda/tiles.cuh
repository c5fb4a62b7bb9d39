// Tiles of bf16 in shared memory, the fragments that a warp takes from them, and which pairs of a tile are visible.
#pragma once

#include <mma.cuh>

#include "attention_plan.h"
#include "device.cuh"
#include "tree.cuh"

namespace tempora::device {

constexpr int kTileThreads = 128;
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr float kLog2e = 1.4426950408889634f;

// Rows are padded by 16 bytes: then eight rows of an 8 x 8 matrix lie in different banks (C is a multiple of 16, so a
// row is an odd number of 16-byte pieces).
template <int C>
constexpr int kTileStride = C + 8;
template <int C>
constexpr std::size_t tile_bytes(int rows) {
  return static_cast<std::size_t>(rows) * kTileStride<C> * sizeof(bf16);
}

// Begins to copy rows [first, first + rows) of a matrix whose row t starts at from + t * stride; rows from `end` on are
// zeros. By all threads of the block.
template <int C, int rows>
__device__ inline void copy_tile(bf16* to, const bf16* from, std::int64_t stride, int first, int end) {
  constexpr int kPieces = C / 8;
  for (int i = threadIdx.x; i < rows * kPieces; i += kTileThreads) {
    const int row = i / kPieces, column = i % kPieces * 8;
    const bool there = first + row < end;
    copy_async(to + row * kTileStride<C> + column, from + (there ? first + row : 0) * stride + column, there);
  }
}

// A's fragment: rows [row, row + 16), columns [column, column + 16) of a tile.
template <int C>
__device__ inline void load_a(std::uint32_t (&a)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(a, tile + (row + lane % 16) * kTileStride<C> + column + lane / 16 * 8);
}

// B's fragments for 16 columns n of the product, where the tile's rows are those n and its columns the sums' k: b[0],
// b[1] for n in [row, row + 8), b[2], b[3] for the next eight.
template <int C>
__device__ inline void load_b(std::uint32_t (&b)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * kTileStride<C> + column + lane / 8 % 2 * 8);
}

// The same where the tile's rows are the sums' k and its columns n.
template <int C>
__device__ inline void load_b_transposed(std::uint32_t (&b)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices_transposed(b, tile + (row + lane % 16) * kTileStride<C> + column + lane / 16 * 8);
}

// A product's 16 rows of numbers as the next product's A: columns [16 * step, 16 * step + 16).
template <int N>
__device__ inline void pack_a(std::uint32_t (&a)[4], const float (&c)[N][4], int step) {
  a[0] = pack(c[2 * step][0], c[2 * step][1]);
  a[1] = pack(c[2 * step][2], c[2 * step][3]);
  a[2] = pack(c[2 * step + 1][0], c[2 * step + 1][1]);
  a[3] = pack(c[2 * step + 1][2], c[2 * step + 1][3]);
}

// scores = rows · columnsᵀ: 16 · R rows of a tile, from first_row on, with all 64 of another.
template <int C, int R>
__device__ inline void dot_rows(float (&scores)[R][kTileTokens / 8][4], const bf16* rows, const bf16* columns,
                                int first_row) {
#pragma unroll
  for (auto& tile : scores) {
#pragma unroll
    for (auto& fragment : tile) {
#pragma unroll
      for (float& score : fragment) score = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < C; k += 16) {
    std::uint32_t a[R][4];
#pragma unroll
    for (int tile = 0; tile < R; ++tile) load_a<C>(a[tile], rows, first_row + 16 * tile, k);
#pragma unroll
    for (int n = 0; n < kTileTokens / 16; ++n) {
      std::uint32_t b[4];
      load_b<C>(b, columns, 16 * n, k);
#pragma unroll
      for (int tile = 0; tile < R; ++tile) {
        mma(scores[tile][2 * n], a[tile], b[0], b[1]);
        mma(scores[tile][2 * n + 1], a[tile], b[2], b[3]);
      }
    }
  }
}

// out += weights · rows of a tile.
template <int C, int R>
__device__ inline void add_product(float (&out)[R][C / 8][4], const float (&weights)[R][kTileTokens / 8][4],
                                   const bf16* rows) {
#pragma unroll
  for (int k = 0; k < kTileTokens / 16; ++k) {
    std::uint32_t a[R][4];
#pragma unroll
    for (int tile = 0; tile < R; ++tile) pack_a(a[tile], weights[tile], k);
#pragma unroll
    for (int n = 0; n < C / 16; ++n) {
      std::uint32_t b[4];
      load_b_transposed<C>(b, rows, 16 * k, 16 * n);
#pragma unroll
      for (int tile = 0; tile < R; ++tile) {
        mma(out[tile][2 * n], a[tile], b[0], b[1]);
        mma(out[tile][2 * n + 1], a[tile], b[2], b[3]);
      }
    }
  }
}

// The plan on the device.
struct PairsView {
  const std::int32_t* start;
  const std::int32_t* pair;
  const std::int32_t* order;
};
struct TilesView {
  const VisibleRange* range;
  const std::int32_t* position;
};

__device__ inline bool sees(const VisibleRange& query, const VisibleRange& key, int distance, int window) {
  return key.enter <= query.enter && query.enter < key.leave && (window == 0 || distance < window);
}

}  // namespace tempora::device
