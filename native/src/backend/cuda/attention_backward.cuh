// Tree attention on tensor cores, backward (FlashAttention-2, arXiv:2307.08691, algorithm 2), without atomic additions:
// the gradient of queries by blocks of 64 queries, that of keys and values by blocks of 64 keys, which compute the
// weights p = exp(score - lse) again.  d_score = p · (d_out · value - delta), delta = d_out · out.
#pragma once

#include "attention_tiles.cuh"

namespace tempora::device {

template <int C>
constexpr std::size_t kBackwardSharedBytes = tile_bytes<C>(4 * kTileTokens) + 2 * kTileTokens * sizeof(float);

// One warp a (token, query head).
template <int C>
__global__ void __launch_bounds__(kBlock)
    delta_kernel(std::int64_t items, const bf16* out, const bf16* d_out, float* delta) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * (kBlock / kWarp) + threadIdx.x / kWarp;
  if (item >= items) return;
  float sum = 0;
  for (int d = threadIdx.x % kWarp; d < C; d += kWarp) sum += load(out + item * C + d) * load(d_out + item * C + d);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) delta[item] = sum;
}

template <int N>
__device__ inline void clear(float (&fragments)[N][4]) {
#pragma unroll
  for (auto& fragment : fragments) {
#pragma unroll
    for (float& number : fragment) number = 0;
  }
}

// 16 rows of 64 · C-wide sums to rows [first, first + 16) of a matrix, those before `end`.
template <int C>
__device__ inline void store_gradient(const float (&sums)[C / 8][4], bf16* to, std::int64_t stride, int first,
                                      int end) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    if (row >= end) continue;
    auto* words = reinterpret_cast<std::uint32_t*>(to + row * stride);
#pragma unroll
    for (int i = 0; i < C / 8; ++i) words[4 * i + lane % 4] = pack(sums[i][2 * half], sums[i][2 * half + 1]);
  }
}

// Grid: (tiles of queries, query heads).
template <int C>
__global__ void __launch_bounds__(kTileThreads)
    query_gradient_kernel(TilesView view, PairsView pairs, AttentionNumbers n, const bf16* q, const bf16* k,
                          const bf16* v, const float* lse, const bf16* d_out, const float* delta, bf16* d_q) {
  bf16* queries = reinterpret_cast<bf16*>(launched_shared());
  bf16* gradients = queries + kTileTokens * kTileStride<C>;
  bf16* keys = gradients + kTileTokens * kTileStride<C>;
  bf16* values = keys + kTileTokens * kTileStride<C>;
  const int tile = pairs.order[blockIdx.x], head = blockIdx.y, kv_head = head / n.group();
  const std::int64_t wide = static_cast<std::int64_t>(n.heads) * C, narrow = static_cast<std::int64_t>(n.kv_heads) * C;
  const int first_query = tile * kTileTokens, first_row = threadIdx.x / kWarp * 16, lane = threadIdx.x % kWarp;
  copy_tile<C, kTileTokens>(queries, q + head * C, wide, first_query, n.tokens);
  copy_tile<C, kTileTokens>(gradients, d_out + head * C, wide, first_query, n.tokens);

  float row_lse[2], row_delta[2], sums[1][C / 8][4];
  VisibleRange range[2];
  int position[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = first_query + first_row + lane / 4 + 8 * half;
    const std::int64_t item = static_cast<std::int64_t>(min(t, n.tokens - 1)) * n.heads + head;
    row_lse[half] = lse[item] * kLog2e, row_delta[half] = delta[item];
    range[half] = view.range[t], position[half] = view.position[t];
  }
  clear(sums[0]);
  for (int p = pairs.start[tile]; p < pairs.start[tile + 1]; ++p) {
    const int first_key = pairs.pair[p] / 2 * kTileTokens;
    if (is_out_of_window(view, tile, 1, pairs.pair[p] / 2, n.window)) continue;
    const bool masked = pairs.pair[p] % 2 != 0 || n.window > 0;
    copy_tile<C, kTileTokens>(keys, k + kv_head * C, narrow, first_key, n.tokens);
    copy_tile<C, kTileTokens>(values, v + kv_head * C, narrow, first_key, n.tokens);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    float scores[1][kTileTokens / 8][4], products[1][kTileTokens / 8][4];
    dot_rows<C>(scores, queries, keys, first_row);
    dot_rows<C>(products, gradients, values, first_row);
#pragma unroll
    for (int i = 0; i < kTileTokens / 8; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2, j = first_key + 8 * i + 2 * (lane % 4) + e % 2;
        float weight = power_of_two(scores[0][i][e] * (n.scale * kLog2e) - row_lse[half]);
        if (masked && !sees(range[half], view.range[j], position[half] - view.position[j], n.window)) weight = 0;
        scores[0][i][e] = weight * (products[0][i][e] - row_delta[half]) * n.scale;
      }
    }
    add_product<C>(sums, PackedWeights(scores), keys);
    __syncthreads();
  }
  store_gradient<C>(sums[0], d_q + head * C, wide, first_query + first_row, n.tokens);
}

// Grid: (tiles of keys, key heads). The queries that see a key are added in order of tiles, head after head.
template <int C>
__global__ void __launch_bounds__(kTileThreads)
    key_gradient_kernel(TilesView view, PairsView pairs, AttentionNumbers n, const bf16* q, const bf16* k,
                        const bf16* v, const float* lse, const bf16* d_out, const float* delta, bf16* d_k, bf16* d_v) {
  bf16* keys = reinterpret_cast<bf16*>(launched_shared());
  bf16* values = keys + kTileTokens * kTileStride<C>;
  bf16* queries = values + kTileTokens * kTileStride<C>;
  bf16* gradients = queries + kTileTokens * kTileStride<C>;
  float* query_lse = reinterpret_cast<float*>(gradients + kTileTokens * kTileStride<C>);
  float* query_delta = query_lse + kTileTokens;
  const int tile = pairs.order[blockIdx.x], kv_head = blockIdx.y;
  const std::int64_t wide = static_cast<std::int64_t>(n.heads) * C, narrow = static_cast<std::int64_t>(n.kv_heads) * C;
  const int first_key = tile * kTileTokens, first_row = threadIdx.x / kWarp * 16, lane = threadIdx.x % kWarp;
  copy_tile<C, kTileTokens>(keys, k + kv_head * C, narrow, first_key, n.tokens);
  copy_tile<C, kTileTokens>(values, v + kv_head * C, narrow, first_key, n.tokens);

  float key_sums[1][C / 8][4], value_sums[1][C / 8][4];
  VisibleRange range[2];
  int position[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = first_key + first_row + lane / 4 + 8 * half;
    range[half] = view.range[j], position[half] = view.position[j];
  }
  clear(key_sums[0]);
  clear(value_sums[0]);
  const int count = pairs.start[tile + 1] - pairs.start[tile];
  for (int step = 0; step < n.group() * count; ++step) {
    const int pair = pairs.pair[pairs.start[tile] + step % count], head = kv_head * n.group() + step / count;
    const int first_query = pair / 2 * kTileTokens;
    if (is_out_of_window(view, pair / 2, 1, tile, n.window)) continue;
    const bool masked = pair % 2 != 0 || n.window > 0;
    copy_tile<C, kTileTokens>(queries, q + head * C, wide, first_query, n.tokens);
    copy_tile<C, kTileTokens>(gradients, d_out + head * C, wide, first_query, n.tokens);
    commit_copies();
    if (static_cast<int>(threadIdx.x) < kTileTokens) {
      const int t = min(first_query + static_cast<int>(threadIdx.x), n.tokens - 1);
      query_lse[threadIdx.x] = lse[static_cast<std::int64_t>(t) * n.heads + head] * kLog2e;
      query_delta[threadIdx.x] = delta[static_cast<std::int64_t>(t) * n.heads + head];
    }
    wait_for_copies<0>();
    __syncthreads();
    float scores[1][kTileTokens / 8][4], products[1][kTileTokens / 8][4];
    dot_rows<C>(scores, keys, queries, first_row);
    dot_rows<C>(products, values, gradients, first_row);
#pragma unroll
    for (int i = 0; i < kTileTokens / 8; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2, column = 8 * i + 2 * (lane % 4) + e % 2, t = first_query + column;
        float weight = power_of_two(scores[0][i][e] * (n.scale * kLog2e) - query_lse[column]);
        if (masked && !sees(view.range[t], range[half], view.position[t] - position[half], n.window)) weight = 0;
        scores[0][i][e] = weight;
        products[0][i][e] = weight * (products[0][i][e] - query_delta[column]) * n.scale;
      }
    }
    add_product<C>(value_sums, PackedWeights(scores), gradients);
    add_product<C>(key_sums, PackedWeights(products), queries);
    __syncthreads();
  }
  store_gradient<C>(key_sums[0], d_k + kv_head * C, narrow, first_key + first_row, n.tokens);
  store_gradient<C>(value_sums[0], d_v + kv_head * C, narrow, first_key + first_row, n.tokens);
}

}  // namespace tempora::device
