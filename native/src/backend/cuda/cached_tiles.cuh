// Attention of several queries to the keys of one split of a paged cache, on tensor cores: each of four warps takes 32
// of the split's keys, and their results are added in order.
#pragma once

#include "attention_tiles.cuh"
#include "cached_split.cuh"

namespace tempora::device {

// A block has 16 · R queries of one key head.
template <int C, int R>
struct CachedTiles {
  static constexpr int kQueries = 16 * R, kWarpKeys = kSplitKeys / kTileWarps;
  static constexpr int kKeyElements = kSplitKeys * kTileStride<C>;
  // Keys and values make room for the warps' results.
  static_assert(sizeof(float) * kTileWarps * kQueries * C <= sizeof(bf16) * 2 * kKeyElements);
  static constexpr std::size_t kSharedBytes =
      sizeof(bf16) * (2 * kKeyElements + kQueries * kTileStride<C>)+sizeof(float) * 2 * kTileWarps * kQueries;
  static_assert(kSharedBytes <= kBlockShared);
};

template <int C, int R>
class CachedTile {
 public:
  using Tiles = CachedTiles<C, R>;

  __device__ CachedTile(const CachedView& view, const AttentionNumbers& numbers, const CacheSplit& split, int kv_head,
                        int query_block)
      : view_(view), n_(numbers), split_(split), kv_head_(kv_head), first_query_(query_block * Tiles::kQueries) {
    keys_ = reinterpret_cast<bf16*>(launched_shared());
    values_ = keys_ + Tiles::kKeyElements;
    queries_ = values_ + Tiles::kKeyElements;
    largest_ = reinterpret_cast<float*>(queries_ + Tiles::kQueries * kTileStride<C>);
    sum_ = largest_ + kTileWarps * Tiles::kQueries;
  }

  __device__ void run(const bf16* q, const bf16* key_cache, const bf16* value_cache) {
    copy_queries(q);
    copy_pages(keys_, key_cache);
    commit_copies();
    copy_pages(values_, value_cache);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    float scores[R][Tiles::kWarpKeys / 8][4];
    score(scores);
    weigh(scores);
    wait_for_copies<0>();
    __syncthreads();
    float out[R][C / 8][4] = {};
    add_values(out, scores);
    __syncthreads();
    add_warps(out);
  }

 private:
  __device__ int warp() const { return threadIdx.x / kWarp; }
  __device__ int lane() const { return threadIdx.x % kWarp; }
  __device__ int queries() const { return split_.rows * n_.group(); }
  __device__ int row_of(int query) const { return split_.row + query / n_.group(); }
  __device__ int head_of(int query) const { return kv_head_ * n_.group() + query % n_.group(); }

  __device__ void copy_queries(const bf16* q) {
    for (int i = threadIdx.x; i < Tiles::kQueries * (C / 8); i += kTileThreads) {
      const int query = first_query_ + i / (C / 8), d = i % (C / 8) * 8;
      const bool there = query < queries();
      const std::int64_t item = there ? static_cast<std::int64_t>(row_of(query)) * n_.heads + head_of(query) : 0;
      copy_async(queries_ + i / (C / 8) * kTileStride<C> + d, q + item * C + d, there);
    }
  }

  __device__ void copy_pages(bf16* to, const bf16* cache) {
    for (int i = threadIdx.x; i < kSplitKeys * (C / 8); i += kTileThreads) {
      const int key = i / (C / 8), d = i % (C / 8) * 8;
      const bool there = key < split_.keys;
      const std::int64_t page = there ? view_.pages[split_.first_page + key / kCachePage] : 0;
      const bf16* from = cache + ((page * n_.kv_heads + kv_head_) * kCachePage + key % kCachePage) * C + d;
      copy_async(to + key * kTileStride<C> + d, from, there);
    }
  }

  __device__ void score(float (&scores)[R][Tiles::kWarpKeys / 8][4]) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int n = 0; n < Tiles::kWarpKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[r][n][i] = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < C; k += 16) {
      std::uint32_t a[R][4];
#pragma unroll
      for (int r = 0; r < R; ++r) load_a<C>(a[r], queries_, 16 * r, k);
#pragma unroll
      for (int n = 0; n < Tiles::kWarpKeys / 16; ++n) {
        std::uint32_t b[4];
        load_b<C>(b, keys_, warp() * Tiles::kWarpKeys + 16 * n, k);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          mma(scores[r][2 * n], a[r], b[0], b[1]);
          mma(scores[r][2 * n + 1], a[r], b[2], b[3]);
        }
      }
    }
  }

  // Scores of what a query does not see become -infinity; returns the largest of this warp's keys for a lane's row.
  __device__ float mask_row(float (&scores)[R][Tiles::kWarpKeys / 8][4], int r, int half) {
    const int query = first_query_ + 16 * r + lane() / 4 + 8 * half;
    const int newest = query < queries() ? view_.position[row_of(query)] : -1;
    const int oldest = n_.window > 0 ? newest - n_.window + 1 : 0;
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < Tiles::kWarpKeys / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const int key = warp() * Tiles::kWarpKeys + 8 * n + 2 * (lane() % 4) + i % 2, at = split_.position + key;
        if (key >= split_.keys || at < oldest || at > newest) scores[r][n][i] = -INFINITY;
        largest = fmaxf(largest, scores[r][n][i]);
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    return fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
  }

  // Scores become weights exp(scaled score - largest of all warps), whose sums are kept a warp.
  __device__ void weigh(float (&scores)[R][Tiles::kWarpKeys / 8][4]) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float largest = mask_row(scores, r, half);
        if (lane() % 4 == 0) largest_[warp() * Tiles::kQueries + 16 * r + lane() / 4 + 8 * half] = largest;
      }
    }
    __syncthreads();
    const float scale = n_.scale * kLog2e;
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * r + lane() / 4 + 8 * half;
        const float largest = largest_of(row), base = largest == -INFINITY ? 0.0f : largest * scale;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < Tiles::kWarpKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            scores[r][n][i] = power_of_two(scores[r][n][i] * scale - base);
            sum += scores[r][n][i];
          }
        }
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (lane() % 4 == 0) sum_[warp() * Tiles::kQueries + row] = sum;
      }
    }
  }

  __device__ float largest_of(int row) const {
    float largest = -INFINITY;
#pragma unroll
    for (int w = 0; w < kTileWarps; ++w) largest = fmaxf(largest, largest_[w * Tiles::kQueries + row]);
    return largest;
  }

  __device__ void add_values(float (&out)[R][C / 8][4], const float (&weights)[R][Tiles::kWarpKeys / 8][4]) {
#pragma unroll
    for (int k = 0; k < Tiles::kWarpKeys / 16; ++k) {
      std::uint32_t a[R][4];
#pragma unroll
      for (int r = 0; r < R; ++r) pack_a(a[r], weights[r], k);
#pragma unroll
      for (int n = 0; n < C / 16; ++n) {
        std::uint32_t b[4];
        load_b_transposed<C>(b, values_, warp() * Tiles::kWarpKeys + 16 * k, 16 * n);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          mma(out[r][2 * n], a[r], b[0], b[1]);
          mma(out[r][2 * n + 1], a[r], b[2], b[3]);
        }
      }
    }
  }

  __device__ void add_warps(const float (&out)[R][C / 8][4]) {
    float* results = reinterpret_cast<float*>(keys_);  // [warps, queries, C]
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int n = 0; n < C / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * r + lane() / 4 + i / 2 * 8;
          results[(warp() * Tiles::kQueries + row) * C + 8 * n + 2 * (lane() % 4) + i % 2] = out[r][n][i];
        }
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < Tiles::kQueries * C; i += kTileThreads) {
      const int query = first_query_ + i / C;
      if (query >= queries()) break;
      float value = 0, sum = 0;
#pragma unroll
      for (int w = 0; w < kTileWarps; ++w) {
        value += results[w * Tiles::kQueries * C + i];
        sum += sum_[w * Tiles::kQueries + i / C];
      }
      const std::int64_t item =
          (static_cast<std::int64_t>(view_.part_start[row_of(query)]) + split_.split) * n_.heads + head_of(query);
      view_.out[item * C + i % C] = value;
      if (i % C != 0) continue;
      view_.largest[item] = largest_of(i / C) * n_.scale;
      view_.sum[item] = sum;
    }
  }

  const CachedView& view_;
  const AttentionNumbers& n_;
  const CacheSplit& split_;
  const int kv_head_, first_query_;
  bf16 *keys_, *values_, *queries_;
  float *largest_, *sum_;  // [warps, queries]
};

// One block's part: a split, a key head and 16 · R of the rows' queries.
template <int C, int R>
__device__ void attend_to_split(const CachedView& view, const AttentionNumbers& n, const SplitBlocks& list, int block,
                                const bf16* q, const bf16* key_cache, const bf16* value_cache) {
  const int item = block / list.query_blocks, query_block = block % list.query_blocks;
  if (item / n.kv_heads >= *list.count) return;
  const CacheSplit split = list.splits[item / n.kv_heads];
  if (query_block * 16 * R >= split.rows * n.group()) return;
  CachedTile<C, R>(view, n, split, item % n.kv_heads, query_block).run(q, key_cache, value_cache);
}

// The blocks of splits that rows have in common, then those of single rows' splits: in one launch they run side by
// side.
template <int C>
__global__ void __launch_bounds__(kTileThreads)
    split_tiles_kernel(CachedView view, AttentionNumbers n, SplitBlocks common, SplitBlocks single, const bf16* q,
                       const bf16* key_cache, const bf16* value_cache) {
  const int block = blockIdx.x;
  if (block < common.blocks) {
    attend_to_split<C, 2>(view, n, common, block, q, key_cache, value_cache);
  } else {
    attend_to_split<C, 1>(view, n, single, block - common.blocks, q, key_cache, value_cache);
  }
}

}  // namespace tempora::device
