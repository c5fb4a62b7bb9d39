// Attention of several queries to the keys of one split of a paged cache, page by page.
#pragma once

#include "cached_plan.h"
#include "tree.cuh"

namespace tempora::device {

constexpr int kWarpQueries = 4;  // of one warp, so that a key is read from shared memory once for all of them
constexpr int kChunk = 8;        // elements of a head that a lane multiplies at once

// Read and written at once; rows of eight floats lie at multiples of 16 bytes, not of 32.
template <typename T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Packed {
  T at[count];
};

// Splits of up to so many rows each, and a launch's blocks for them. How many splits there are the device knows: there
// is a block for each that there may be.
struct SplitBlocks {
  const CacheSplit* splits;
  const std::int32_t* count;
  int blocks, query_blocks;  // query_blocks: for each split and key head
};

struct CachedView {
  const std::int32_t* pages;
  const std::int32_t* position;    // [M]
  const std::int32_t* part_start;  // [M + 1]
  float* out;                      // [parts, heads, head_dim] Σ exp(score - largest) · value
  float* largest;                  // [parts, heads]
  float* sum;                      // [parts, heads] Σ exp(score - largest)
};

// Heads of up to 64 · pairs dimensions; a lane has two of each 64 of a result. Rows of keys lie 16 bytes further apart
// than they are long, so that lanes which read different rows meet different banks.
template <typename T, int pairs, int warps>
struct SplitMemory {
  static constexpr int kHead = 2 * kWarp * pairs;
  static constexpr int kStride = kHead + 16 / sizeof(T);
  alignas(16) T keys[kCachePage][kStride];
  alignas(16) T values[kCachePage][kStride];
  alignas(16) float queries[warps * kWarpQueries][kHead];
  alignas(16) float weights[warps][kCachePage][kWarpQueries];
};

// What a warp knows of its queries. Lanes l and l + 16 have key l of a page.
struct QueryState {
  float largest[kWarpQueries], sum[kWarpQueries];  // sum: of this lane's keys
  int oldest[kWarpQueries], newest[kWarpQueries];  // positions of the first and last key that are visible
};

template <typename T, int pairs, int warps>
class SplitAttention {
 public:
  using Memory = SplitMemory<T, pairs, warps>;

  __device__ SplitAttention(const CachedView& view, const AttentionNumbers& numbers, Memory& memory,
                            const CacheSplit& split, int kv_head, int query_block)
      : view_(view),
        n_(numbers),
        memory_(memory),
        split_(split),
        kv_head_(kv_head),
        first_query_(query_block * warps * kWarpQueries) {}

  __device__ void run(const T* q, const T* key_cache, const T* value_cache) {
    const int warp = threadIdx.x / kWarp;
    load_queries(q);
    int visible = split_.position + split_.keys;  // from here on some query may see keys
    for (int i = 0; i < split_.rows; ++i) visible = min(visible, oldest_of(split_.row + i));
    QueryState state;
    for (int i = 0; i < kWarpQueries; ++i) {
      state.largest[i] = -INFINITY;
      state.sum[i] = 0;
      const int query = first_query_ + warp * kWarpQueries + i;
      state.oldest[i] = query < queries() ? oldest_of(row_of(query)) : 0;
      state.newest[i] = query < queries() ? view_.position[row_of(query)] : -1;
    }
    for (int first = 0; first < split_.keys; first += kCachePage) {
      if (split_.position + first + kCachePage <= visible) continue;
      __syncthreads();
      load_page(memory_.keys, key_cache, first);
      load_page(memory_.values, value_cache, first);
      __syncthreads();
      add_page(state, first);
    }
    for (int i = 0; i < kWarpQueries; ++i) write(state, i);
  }

 private:
  __device__ int queries() const { return split_.rows * n_.group(); }
  __device__ int row_of(int query) const { return split_.row + query / n_.group(); }
  __device__ int head_of(int query) const { return kv_head_ * n_.group() + query % n_.group(); }
  __device__ int oldest_of(int row) const { return n_.window > 0 ? view_.position[row] - n_.window + 1 : 0; }
  __device__ int chunks() const { return (n_.head_dim + 2 * kChunk - 1) / (2 * kChunk); }

  // Scaled; 0 behind the head and behind the last query.
  __device__ void load_queries(const T* q) {
    for (int i = threadIdx.x; i < warps * kWarpQueries * Memory::kHead; i += warps * kWarp) {
      const int query = first_query_ + i / Memory::kHead, d = i % Memory::kHead;
      const bool there = query < queries() && d < n_.head_dim;
      const std::int64_t item = static_cast<std::int64_t>(row_of(query)) * n_.heads + head_of(query);
      memory_.queries[i / Memory::kHead][d] = there ? load(q + item * n_.head_dim + d) * n_.scale : 0.0f;
    }
  }

  // 0 where there is no key, since what lies there may be NaN.
  __device__ void load_page(T (&to)[kCachePage][Memory::kStride], const T* cache, int first) {
    constexpr int kVector = 16 / sizeof(T);
    const int keys = min(kCachePage, split_.keys - first);
    const std::int64_t page = view_.pages[split_.first_page + first / kCachePage];
    const T* from = cache + (page * n_.kv_heads + kv_head_) * kCachePage * n_.head_dim;
    const int vectors = 2 * kChunk * chunks() / kVector;  // of a row
    for (int i = threadIdx.x; i < kCachePage * vectors; i += warps * kWarp) {
      const int key = i / vectors, d = i % vectors * kVector;
      Packed<T, kVector> packed;
      if (key < keys && n_.head_dim % kVector == 0 && d < n_.head_dim) {
        packed = *reinterpret_cast<const Packed<T, kVector>*>(from + key * n_.head_dim + d);
      } else {
        for (int j = 0; j < kVector; ++j) {
          store(packed.at + j, key < keys && d + j < n_.head_dim ? load(from + key * n_.head_dim + d + j) : 0.0f);
        }
      }
      *reinterpret_cast<Packed<T, kVector>*>(&to[key][d]) = packed;
    }
  }

  // The lane's key by the warp's queries: lanes l and l + 16 have every second chunk each.
  __device__ void dot(float (&score)[kWarpQueries]) const {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, key = lane % kCachePage;
    for (float& value : score) value = 0;
    for (int chunk = lane / kCachePage; chunk < 2 * chunks(); chunk += 2) {
      const auto packed = *reinterpret_cast<const Packed<T, kChunk>*>(&memory_.keys[key][chunk * kChunk]);
#pragma unroll
      for (int i = 0; i < kWarpQueries; ++i) {
        const auto* query =
            reinterpret_cast<const Packed<float, 4>*>(&memory_.queries[warp * kWarpQueries + i][chunk * kChunk]);
        const Packed<float, 4> low = query[0], high = query[1];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          score[i] += low.at[j] * load(packed.at + j) + high.at[j] * load(packed.at + 4 + j);
        }
      }
    }
    for (float& value : score) value += __shfl_xor_sync(0xffffffffu, value, kCachePage);
  }

  __device__ void add_page(QueryState& state, int first) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, key = lane % kCachePage;
    float score[kWarpQueries];
    dot(score);
    float shrink[kWarpQueries];
    Packed<float, kWarpQueries> weight;
#pragma unroll
    for (int i = 0; i < kWarpQueries; ++i) {
      const int at = split_.position + first + key;
      const bool seen = first + key < split_.keys && at >= state.oldest[i] && at <= state.newest[i];
      if (!seen) score[i] = -INFINITY;
      const float largest = fmaxf(state.largest[i], warp_max(score[i]));
      const float origin = largest == -INFINITY ? 0.0f : largest;  // so far no key is visible
      shrink[i] = expf(state.largest[i] - origin);
      weight.at[i] = expf(score[i] - origin);
      state.sum[i] = state.sum[i] * shrink[i] + weight.at[i];
      state.largest[i] = largest;
    }
    // Both lanes of a key have the same.
    *reinterpret_cast<Packed<float, kWarpQueries>*>(memory_.weights[warp][key]) = weight;
    __syncwarp();
    add_values(shrink);
    __syncwarp();
  }

  __device__ void add_values(const float (&shrink)[kWarpQueries]) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
    for (int p = 0; p < pairs; ++p) {
#pragma unroll
      for (int i = 0; i < kWarpQueries; ++i) {
        out_[i][2 * p] *= shrink[i];
        out_[i][2 * p + 1] *= shrink[i];
      }
    }
#pragma unroll 4
    for (int key = 0; key < kCachePage; ++key) {
      const auto weight = *reinterpret_cast<const Packed<float, kWarpQueries>*>(memory_.weights[warp][key]);
#pragma unroll
      for (int p = 0; p < pairs; ++p) {
        const int d = 2 * (p * kWarp + lane);
        if (d >= n_.head_dim) continue;
        const auto value = *reinterpret_cast<const Packed<T, 2>*>(&memory_.values[key][d]);
#pragma unroll
        for (int i = 0; i < kWarpQueries; ++i) {
          out_[i][2 * p] += weight.at[i] * load(value.at);
          out_[i][2 * p + 1] += weight.at[i] * load(value.at + 1);
        }
      }
    }
  }

  __device__ void write(const QueryState& state, int i) const {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const float sum = warp_sum(state.sum[i]) / 2;  // two lanes have each key
    const int query = first_query_ + warp * kWarpQueries + i;
    if (query >= queries()) return;
    const std::int64_t part = view_.part_start[row_of(query)] + split_.split;
    const std::int64_t item = part * n_.heads + head_of(query);
    if (lane == 0) {
      view_.largest[item] = state.largest[i];
      view_.sum[item] = sum;
    }
#pragma unroll
    for (int p = 0; p < pairs; ++p) {
      const int d = 2 * (p * kWarp + lane);
      if (d >= n_.head_dim) continue;
      *reinterpret_cast<Packed<float, 2>*>(view_.out + item * n_.head_dim + d) = {{out_[i][2 * p], out_[i][2 * p + 1]}};
    }
  }

  const CachedView& view_;
  const AttentionNumbers& n_;
  Memory& memory_;
  const CacheSplit& split_;
  int kv_head_, first_query_;
  float out_[kWarpQueries][2 * pairs] = {};
};

}  // namespace tempora::device
