// Tree attention on tensor cores, forward: a block takes 128 queries of one head and walks the tiles of 64 keys that
// they see, by online softmax (Dao, FlashAttention-2, arXiv:2307.08691, algorithm 1). Keys and values arrive in turn,
// each while the other is multiplied by.
#pragma once

#include "attention_tiles.cuh"

namespace tempora::device {

template <int C>
struct ForwardTiles {
  static constexpr int kRowTiles = kWideTileTokens / (16 * kTileWarps);  // of 16 queries, a warp
  static constexpr int kKeyColumns = kTileTokens / 8, kValueColumns = C / 8;
  static constexpr std::size_t kSharedBytes = tile_bytes<C>(kWideTileTokens + 2 * kTileTokens);
  static_assert(kSharedBytes <= kBlockShared);
};

// The rows that a lane holds numbers of: 16 * tile + lane / 4 + 8 * half of its warp's.
template <int C>
struct ForwardRows {
  float largest[ForwardTiles<C>::kRowTiles][2], sum[ForwardTiles<C>::kRowTiles][2];
  float out[ForwardTiles<C>::kRowTiles][ForwardTiles<C>::kValueColumns][4];
};

// Turns scores into weights 2^(scaled score - largest), and takes what was summed before down to the new largest.
template <int C, int R>
__device__ inline void softmax_step(ForwardRows<C>& rows, float (&scores)[R][kTileTokens / 8][4], float scale) {
#pragma unroll
  for (int tile = 0; tile < R; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = rows.largest[tile][half];
#pragma unroll
      for (int n = 0; n < kTileTokens / 8; ++n) {
        largest = fmaxf(largest, fmaxf(scores[tile][n][2 * half], scores[tile][n][2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      // A row that has seen nothing yet stays at nothing.
      const float base = largest == -INFINITY ? 0.0f : largest * scale;
      const float shrink = power_of_two(rows.largest[tile][half] * scale - base);
      rows.largest[tile][half] = largest;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kTileTokens / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[tile][n][i] = power_of_two(scores[tile][n][i] * scale - base);
          sum += scores[tile][n][i];
        }
      }
      rows.sum[tile][half] = rows.sum[tile][half] * shrink + sum;
#pragma unroll
      for (int n = 0; n < ForwardTiles<C>::kValueColumns; ++n) {
        rows.out[tile][n][2 * half] *= shrink;
        rows.out[tile][n][2 * half + 1] *= shrink;
      }
    }
  }
}

// Key by key, each for all of a lane's rows: registers hold what is known of the rows and of one key.
template <int R>
__device__ inline void mask_tile(float (&scores)[R][kTileTokens / 8][4], const TilesView& view, int first_query,
                                 int first_key, int window) {
  const int lane = threadIdx.x % kWarp;
  VisibleRange query[R][2];
  int position[R][2];
#pragma unroll
  for (int i = 0; i < 2 * R; ++i) {
    const int t = first_query + 8 * i + lane / 4;
    query[i / 2][i % 2] = view.range[t], position[i / 2][i % 2] = view.position[t];
  }
#pragma unroll
  for (int i = 0; i < kTileTokens / 4; ++i) {
    const int j = first_key + i / 2 * 8 + 2 * (lane % 4) + i % 2;
    const VisibleRange key = view.range[j];
    const int key_position = view.position[j];
#pragma unroll
    for (int row = 0; row < 2 * R; ++row) {
      const int tile = row / 2, half = row % 2;
      if (!sees(query[tile][half], key, position[tile][half] - key_position, window))
        scores[tile][i / 2][2 * half + i % 2] = -INFINITY;
    }
  }
}

template <int C>
__device__ inline void store_rows(const ForwardRows<C>& rows, int first_query, int head, const AttentionNumbers& n,
                                  bf16* out, float* lse) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int tile = 0; tile < ForwardTiles<C>::kRowTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = rows.sum[tile][half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int t = first_query + 16 * tile + lane / 4 + 8 * half;
      if (t >= n.tokens) continue;
      const std::int64_t item = static_cast<std::int64_t>(t) * n.heads + head;
      auto* to = reinterpret_cast<std::uint32_t*>(out + item * C);
#pragma unroll
      for (int i = 0; i < C / 8; ++i) {
        to[4 * i + lane % 4] = pack(rows.out[tile][i][2 * half] / sum, rows.out[tile][i][2 * half + 1] / sum);
      }
      if (lane % 4 == 0) lse[item] = rows.largest[tile][half] * n.scale + logf(sum);
    }
  }
}

// Grid: (tiles of queries, query heads).
template <int C>
__global__ void __launch_bounds__(kTileThreads)
    forward_tiles_kernel(TilesView view, PairsView pairs, AttentionNumbers n, const bf16* q, const bf16* k,
                         const bf16* v, bf16* out, float* lse) {
  using Tiles = ForwardTiles<C>;
  bf16* queries = reinterpret_cast<bf16*>(launched_shared());
  bf16* keys = queries + kWideTileTokens * kTileStride<C>;
  bf16* values = keys + kTileTokens * kTileStride<C>;
  const int tile = pairs.order[blockIdx.x], head = blockIdx.y, kv_head = head / n.group();
  const std::int64_t wide = static_cast<std::int64_t>(n.heads) * C, narrow = static_cast<std::int64_t>(n.kv_heads) * C;
  const bf16* head_keys = k + kv_head * C;
  const bf16* head_values = v + kv_head * C;
  const int first_row = threadIdx.x / kWarp * 16 * Tiles::kRowTiles;
  const int first_query = tile * kWideTileTokens;

  ForwardRows<C> rows;
#pragma unroll
  for (int i = 0; i < Tiles::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) rows.largest[i][half] = -INFINITY, rows.sum[i][half] = 0;
#pragma unroll
    for (auto& fragment : rows.out[i]) {
#pragma unroll
      for (float& number : fragment) number = 0;
    }
  }
  const int end = pairs.start[tile + 1];
  // The first pair from p on that is in somebody's window: the last one is, each query sees itself.
  const auto in_window = [&](int p) {
    constexpr int kTiles = kWideTileTokens / kTileTokens;
    while (p < end && is_out_of_window(view, tile * kTiles, kTiles, pairs.pair[p] / 2, n.window)) ++p;
    return p;
  };
  int p = in_window(pairs.start[tile]);
  copy_tile<C, kWideTileTokens>(queries, q + head * C, wide, first_query, n.tokens);
  copy_tile<C, kTileTokens>(keys, head_keys, narrow, pairs.pair[p] / 2 * kTileTokens, n.tokens);
  commit_copies();
  while (p < end) {
    const int pair = pairs.pair[p], first_key = pair / 2 * kTileTokens;
    wait_for_copies<0>();
    __syncthreads();
    copy_tile<C, kTileTokens>(values, head_values, narrow, first_key, n.tokens);
    commit_copies();
    float scores[Tiles::kRowTiles][kTileTokens / 8][4];
    dot_rows<C>(scores, queries, keys, first_row);
    if (pair % 2 != 0 || n.window > 0) mask_tile(scores, view, first_query + first_row, first_key, n.window);
    softmax_step(rows, scores, n.scale * kLog2e);
    const PackedWeights weights(scores);
    wait_for_copies<0>();
    __syncthreads();
    p = in_window(p + 1);
    if (p < end) copy_tile<C, kTileTokens>(keys, head_keys, narrow, pairs.pair[p] / 2 * kTileTokens, n.tokens);
    commit_copies();
    add_product<C>(rows.out, weights, values);
  }
  wait_for_copies<0>();
  store_rows(rows, first_query + first_row, head, n, out, lse);
}

}  // namespace tempora::device
