// Attention over the paged KV cache.
#include <algorithm>
#include <type_traits>

#include "cache_layout.cuh"
#include "cached_split.cuh"
#include "cached_tiles.cuh"
#include "check.h"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

constexpr int kWarpsPerBlock = kBlock / kWarp;

// One block a row.
template <typename T>
__global__ void write_cache_kernel(const T* k, const T* v, const std::int32_t* slots, int kv_heads, int head_dim,
                                   T* key_cache, T* value_cache) {
  const std::int64_t row = blockIdx.x;
  const int width = kv_heads * head_dim;
  for (int i = threadIdx.x; i < width; i += kBlock) {
    const std::int64_t to = cache_offset(slots[row], i / head_dim, kv_heads, head_dim) + i % head_dim;
    key_cache[to] = k[row * width + i];
    value_cache[to] = v[row * width + i];
  }
}

// One block a (split, key head, warps · kWarpQueries of the rows' queries).
template <typename T, int pairs, int warps>
__global__ void __launch_bounds__(warps* kWarp, 1) split_kernel(CachedView view, AttentionNumbers n, SplitBlocks list,
                                                                const T* q, const T* key_cache, const T* value_cache) {
  __shared__ SplitMemory<T, pairs, warps> memory;
  const int item = blockIdx.x / list.query_blocks, query_block = blockIdx.x % list.query_blocks;
  if (item / n.kv_heads >= *list.count) return;
  const CacheSplit split = list.splits[item / n.kv_heads];
  if (query_block * warps * kWarpQueries >= split.rows * n.group()) return;
  SplitAttention<T, pairs, warps>(view, n, memory, split, item % n.kv_heads, query_block)
      .run(q, key_cache, value_cache);
}

// One warp a (row, query head): its parts in the order of the path.
template <typename T>
__global__ void merge_kernel(CachedView view, AttentionNumbers n, T* out) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (item >= static_cast<std::int64_t>(n.tokens) * n.heads) return;
  const int row = static_cast<int>(item / n.heads), head = static_cast<int>(item % n.heads);
  const int begin = view.part_start[row], end = view.part_start[row + 1];
  float largest = -INFINITY;
  for (int part = begin; part < end; ++part) {
    largest = fmaxf(largest, view.largest[static_cast<std::int64_t>(part) * n.heads + head]);
  }
  float sum = 0;
  float values[kLaneValues] = {}, part_values[kLaneValues];
  for (int part = begin; part < end; ++part) {
    const std::int64_t at = static_cast<std::int64_t>(part) * n.heads + head;
    const float weight = expf(view.largest[at] - largest);
    sum += weight * view.sum[at];
    load_head(view.out + at * n.head_dim, n.head_dim, part_values);
    add_scaled(values, weight, part_values);
  }
  for (float& value : values) value /= sum;
  store_head(out + item * n.head_dim, n.head_dim, values);
}

struct CacheOperands {
  const CudaCachePlan& plan;
  CachedView view;
  AttentionNumbers numbers;
  cudaStream_t stream;
  const void *q, *keys, *values;

  // Blocks of so many queries.
  SplitBlocks single(int queries) const {
    return blocks_of(plan.single(), plan.counts(), plan.room().single, 1, queries);
  }
  SplitBlocks common(int queries) const {
    return blocks_of(plan.common(), plan.counts() + 1, plan.room().common, kSplitRows, queries);
  }

 private:
  SplitBlocks blocks_of(const CacheSplit* splits, const std::int32_t* count, std::size_t room, int rows,
                        int queries) const {
    const int group = numbers.heads / numbers.kv_heads;
    const int query_blocks = static_cast<int>(blocks_for(std::int64_t{rows} * group, queries));
    return {splits, count, static_cast<int>(room) * numbers.kv_heads * query_blocks, query_blocks};
  }
};

template <typename T, int pairs, int warps>
void attend_to(const CacheOperands& o, const SplitBlocks& list) {
  if (list.blocks == 0) return;
  launch("cached_attention", split_kernel<T, pairs, warps>, static_cast<unsigned>(list.blocks), warps * kWarp, o.stream,
         o.view, o.numbers, list, static_cast<const T*>(o.q), static_cast<const T*>(o.keys),
         static_cast<const T*>(o.values));
}

template <typename T, int pairs>
void attend_plainly_to_all(const CacheOperands& o) {
  constexpr int kCommonWarps = pairs > 2 ? 2 : 8;  // what shared memory has room for
  if (o.numbers.heads / o.numbers.kv_heads <= kWarpQueries) {
    attend_to<T, pairs, 1>(o, o.single(kWarpQueries));
  } else {
    attend_to<T, pairs, 2>(o, o.single(2 * kWarpQueries));
  }
  attend_to<T, pairs, kCommonWarps>(o, o.common(kCommonWarps * kWarpQueries));
}

template <int C>
void attend_to_all_tiles(const CacheOperands& o) {
  const SplitBlocks common = o.common(32), single = o.single(16);
  launch("cached_attention, tiles", split_tiles_kernel<C>,
         LaunchShape{static_cast<unsigned>(common.blocks + single.blocks), kTileThreads,
                     std::max(CachedTiles<C, 1>::kSharedBytes, CachedTiles<C, 2>::kSharedBytes)},
         o.stream, o.view, o.numbers, common, single, static_cast<const bf16*>(o.q), static_cast<const bf16*>(o.keys),
         static_cast<const bf16*>(o.values));
}

// By tensor cores where they know the head, as in training.
template <typename T>
void attend_to_all(const CacheOperands& o) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (o.numbers.head_dim == 64) return attend_to_all_tiles<64>(o);
    if (o.numbers.head_dim == 96) return attend_to_all_tiles<96>(o);
    if (o.numbers.head_dim == 128) return attend_to_all_tiles<128>(o);
  }
  if (o.numbers.head_dim <= 64) return attend_plainly_to_all<T, 1>(o);
  if (o.numbers.head_dim <= 128) return attend_plainly_to_all<T, 2>(o);
  attend_plainly_to_all<T, 4>(o);
}

}  // namespace

std::size_t CudaBackend::cache_bytes(int pages, const AttentionShape& shape, DType dtype) const {
  return static_cast<std::size_t>(pages) * kCachePage * shape.kv_heads * shape.head_dim * size_of(dtype);
}

void CudaBackend::write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                              void* key_cache, void* value_cache) {
  require_dense("write_cache", {k, v});
  if (k.rows == 0) return;
  with_type(k.dtype, [&]<typename T>() {
    launch("write_cache", write_cache_kernel<T>, static_cast<unsigned>(k.rows), kBlock, stream_,
           static_cast<const T*>(k.data), static_cast<const T*>(v.data), slots, shape.kv_heads, shape.head_dim,
           static_cast<T*>(key_cache), static_cast<T*>(value_cache));
  });
}

std::unique_ptr<CachePlan> CudaBackend::plan_cache(CachePaths paths) {
  const CacheSplits splits = split_paths(paths);
  return std::make_unique<CudaCachePlan>(*this, paths, splits, room_for(paths, splits));
}

bool CudaBackend::change_plan(std::unique_ptr<CachePlan>& plan, CachePaths paths) {
  const CacheSplits splits = split_paths(paths);
  auto* known = static_cast<CudaCachePlan*>(plan.get());
  if (known != nullptr && known->change(*this, paths, splits)) return true;
  plan = std::make_unique<CudaCachePlan>(*this, paths, splits, with_room_to_grow(room_for(paths, splits)));
  return false;
}

void CudaBackend::cached_attention(const CachePlan& cache_plan, const AttentionShape& shape, const Matrix& q,
                                   const void* key_cache, const void* value_cache, const Matrix& out) {
  require_dense("cached_attention", {q, out});
  if (q.rows == 0) return;
  const auto& plan = static_cast<const CudaCachePlan&>(cache_plan);
  const AttentionNumbers numbers = numbers_of(shape, q.rows);
  const std::size_t items = plan.room().parts * static_cast<std::size_t>(shape.heads);
  const Buffer parts = allocate(items * static_cast<std::size_t>(shape.head_dim) * sizeof(float), MemoryUse::workspace);
  const Buffer sums = allocate(2 * items * sizeof(float), MemoryUse::workspace);
  float* largest = static_cast<float*>(sums.data());
  const CachedView view{plan.pages(), plan.position(), plan.part_start(), static_cast<float*>(parts.data()),
                        largest,      largest + items};
  const CacheOperands operands{plan, view, numbers, stream_, q.data, key_cache, value_cache};
  with_type(q.dtype, [&]<typename T>() {
    attend_to_all<T>(operands);
    launch("cached_attention", merge_kernel<T>, blocks_for(q.rows * shape.heads, kWarpsPerBlock), kBlock, stream_, view,
           numbers, static_cast<T*>(out.data));
  });
}

}  // namespace tempora
