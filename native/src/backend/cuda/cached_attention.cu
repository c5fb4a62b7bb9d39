// The paged KV cache. A page holds, for each key head, kCachePage tokens of C elements.
#include "check.h"
#include "cuda_backend.h"
#include "tree.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kWarpsPerBlock = kBlock / kWarp;

struct CudaCachePlan : CachePlan {
  Buffer row_segment, segments, pages, position;
};

struct PathView {
  const std::int32_t* row_segment;
  const CachePaths::Segment* segments;
  const std::int32_t* pages;
  const std::int32_t* position;
};

__host__ __device__ std::int64_t cache_offset(std::int64_t slot, int kv_head, int kv_heads, int head_dim) {
  const std::int64_t page = slot / kCachePage, in_page = slot % kCachePage;
  return ((page * kv_heads + kv_head) * kCachePage + in_page) * head_dim;
}

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

// One warp a (row, query head); keys in the order of the path.
template <typename T>
__global__ void cached_attention_kernel(PathView paths, AttentionNumbers n, const T* q, const T* key_cache,
                                        const T* value_cache, T* out) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (item >= static_cast<std::int64_t>(n.tokens) * n.heads) return;
  const int row = static_cast<int>(item / n.heads), kv_head = static_cast<int>(item % n.heads) / n.group();
  const int newest = paths.position[row];
  const int oldest = n.window > 0 ? newest - n.window + 1 : 0;
  float query[kLaneValues], key[kLaneValues], value[kLaneValues];
  load_head(q + item * n.head_dim, n.head_dim, query);
  OnlineSoftmax softmax;
  int position = 0;
  for (int s = paths.row_segment[row]; s < paths.row_segment[row + 1]; ++s) {
    const CachePaths::Segment segment = paths.segments[s];
    const int begin = max(0, oldest - position), end = min(segment.length, newest - position + 1);
    for (int j = begin; j < end; ++j) {
      const std::int64_t slot =
          static_cast<std::int64_t>(paths.pages[segment.first_page + j / kCachePage]) * kCachePage + j % kCachePage;
      const std::int64_t at = cache_offset(slot, kv_head, n.kv_heads, n.head_dim);
      load_head(key_cache + at, n.head_dim, key);
      load_head(value_cache + at, n.head_dim, value);
      softmax.add(dot_heads(query, key) * n.scale, value);
    }
    position += segment.length;
  }
  softmax.finish();
  store_head(out + item * n.head_dim, n.head_dim, softmax.out);
}

}  // namespace

std::size_t CudaBackend::cache_bytes(int pages, const AttentionShape& shape, DType dtype) const {
  return static_cast<std::size_t>(pages) * kCachePage * shape.kv_heads * shape.head_dim * size_of(dtype);
}

void CudaBackend::write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                              void* key_cache, void* value_cache) {
  require_dense("write_cache", {k, v});
  if (k.rows == 0) return;
  const Buffer device_slots = upload(std::vector<std::int32_t>(slots, slots + k.rows));
  with_type(k.dtype, [&]<typename T>() {
    launch("write_cache", write_cache_kernel<T>, static_cast<unsigned>(k.rows), kBlock, stream_,
           static_cast<const T*>(k.data), static_cast<const T*>(v.data),
           static_cast<const std::int32_t*>(device_slots.data()), shape.kv_heads, shape.head_dim,
           static_cast<T*>(key_cache), static_cast<T*>(value_cache));
  });
}

std::unique_ptr<CachePlan> CudaBackend::plan_cache(CachePaths paths) {
  auto plan = std::make_unique<CudaCachePlan>();
  plan->row_segment = upload(paths.row_segment);
  plan->segments = upload(paths.segments);
  plan->pages = upload(paths.pages);
  plan->position = upload(paths.position);
  return plan;
}

void CudaBackend::cached_attention(const CachePlan& plan, const AttentionShape& shape, const Matrix& q,
                                   const void* key_cache, const void* value_cache, const Matrix& out) {
  require_dense("cached_attention", {q, out});
  if (q.rows == 0) return;
  const auto& paths = static_cast<const CudaCachePlan&>(plan);
  const AttentionNumbers numbers = numbers_of(shape, q.rows);
  const PathView view{static_cast<const std::int32_t*>(paths.row_segment.data()),
                      static_cast<const CachePaths::Segment*>(paths.segments.data()),
                      static_cast<const std::int32_t*>(paths.pages.data()),
                      static_cast<const std::int32_t*>(paths.position.data())};
  with_type(q.dtype, [&]<typename T>() {
    launch("cached_attention", cached_attention_kernel<T>, blocks_for(q.rows * shape.heads, kWarpsPerBlock), kBlock,
           stream_, view, numbers, static_cast<const T*>(q.data), static_cast<const T*>(key_cache),
           static_cast<const T*>(value_cache), static_cast<T*>(out.data));
  });
}

}  // namespace tempora
