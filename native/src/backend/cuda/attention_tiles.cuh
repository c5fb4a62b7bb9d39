// What attention's kernels on tensor cores share: products of a warp's rows with a tile, and which pairs are visible.
#pragma once

#include "attention_plan.h"
#include "tiles.cuh"
#include "tree.cuh"

namespace tempora::device {

constexpr float kLog2e = 1.4426950408889634f;

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

// Weights of 16 · R rows as A's fragments: half the registers.
template <int R>
struct PackedWeights {
  std::uint32_t of[R][kTileTokens / 16][4];

  __device__ explicit PackedWeights(const float (&weights)[R][kTileTokens / 8][4]) {
#pragma unroll
    for (int tile = 0; tile < R; ++tile) {
#pragma unroll
      for (int k = 0; k < kTileTokens / 16; ++k) pack_a(of[tile][k], weights[tile], k);
    }
  }
};

// out += weights · rows of a tile.
template <int C, int R>
__device__ inline void add_product(float (&out)[R][C / 8][4], const PackedWeights<R>& weights, const bf16* rows) {
#pragma unroll
  for (int k = 0; k < kTileTokens / 16; ++k) {
#pragma unroll
    for (int n = 0; n < C / 16; ++n) {
      std::uint32_t b[4];
      load_b_transposed<C>(b, rows, 16 * k, 16 * n);
#pragma unroll
      for (int tile = 0; tile < R; ++tile) {
        mma(out[tile][2 * n], weights.of[tile][k], b[0], b[1]);
        mma(out[tile][2 * n + 1], weights.of[tile][k], b[2], b[3]);
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
  const PositionRange* tile_position;
};

// Whether a tile of keys is in no query's window. The queries are `query_tiles` tiles of kTileTokens from query_tile
// on.
__device__ inline bool is_out_of_window(const TilesView& view, int query_tile, int query_tiles, int key_tile,
                                        int window) {
  if (window == 0) return false;
  int lowest = view.tile_position[query_tile].lowest;
  for (int i = 1; i < query_tiles; ++i) lowest = min(lowest, view.tile_position[query_tile + i].lowest);
  return lowest - view.tile_position[key_tile].highest >= window;
}

__device__ inline bool sees(const VisibleRange& query, const VisibleRange& key, int distance, int window) {
  return key.enter <= query.enter && query.enter < key.leave && (window == 0 || distance < window);
}

}  // namespace tempora::device
