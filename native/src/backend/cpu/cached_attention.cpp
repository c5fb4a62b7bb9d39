#include "cached_attention_plan.h"

#include <algorithm>

#include "attention_scratch.h"
#include "cpu_backend.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

static_assert(kCachePageKeys == kCachePage);

// One token of k and v [kv_heads · head_dim] to its slot.
template <typename T>
void write_token(const T* k, const T* v, std::int32_t slot, const AttentionShape& shape, T* keys, T* values) {
  const std::int64_t columns = cache_columns(shape.head_dim);
  const std::int64_t page = slot / kCachePage, offset = slot % kCachePage;
  for (int head = 0; head < shape.kv_heads; ++head, k += shape.head_dim, v += shape.head_dim) {
    const std::int64_t first = (page * shape.kv_heads + head) * kCachePage;
    T* key = keys + first * shape.head_dim + offset;
    for (int c = 0; c < shape.head_dim; ++c) key[c * kCachePage] = k[c];
    T* value = values + (first + offset) * columns;
    std::copy(v, v + shape.head_dim, value);
    std::fill(value + shape.head_dim, value + columns, T{0});
  }
}

template <typename T>
void write_tokens(int threads, const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                  void* keys, void* values) {
  // Keys go one element to a cache line, which takes some ten times as long as a copy.
  parallel_ranges(threads, k.rows, row_grain(16 * k.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      write_token(static_cast<const T*>(k.data) + row * k.cols, static_cast<const T*>(v.data) + row * k.cols,
                  slots[row], shape, static_cast<T*>(keys), static_cast<T*>(values));
    }
  });
}

}  // namespace

std::size_t CpuBackend::cache_bytes(int pages, const AttentionShape& shape, DType dtype) const {
  return static_cast<std::size_t>(pages) * kCachePage * static_cast<std::size_t>(shape.kv_heads) *
         static_cast<std::size_t>(cache_columns(shape.head_dim)) * size_of(dtype);
}

void CpuBackend::write_cache(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape,
                             void* key_cache, void* value_cache) {
  require_dense("write_cache", {k, v});
  require(k.dtype == v.dtype && k.rows == v.rows && k.cols == v.cols &&
              k.cols == static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim,
          "write_cache: k and v are [M, kv_heads · head_dim]");
  const auto write = k.dtype == DType::f32 ? write_tokens<float> : write_tokens<std::uint16_t>;
  write(threads_, k, v, slots, shape, key_cache, value_cache);
}

std::unique_ptr<CachePlan> CpuBackend::plan_cache(CachePaths paths) {
  return make_cache_plan(std::move(paths), threads_);
}

void CpuBackend::cached_attention(const CachePlan& cache_plan, const AttentionShape& shape, const Matrix& q,
                                  const void* key_cache, const void* value_cache, const Matrix& out) {
  require_dense("cached_attention", {q, out});
  const auto& plan = static_cast<const CpuCachePlan&>(cache_plan);
  require(q.rows == static_cast<std::int64_t>(plan.paths.position.size()) &&
              q.cols == static_cast<std::int64_t>(shape.heads) * shape.head_dim && out.dtype == q.dtype &&
              out.rows == q.rows && out.cols == q.cols,
          "cached attention: q and out are [M, heads · head_dim]");
  CachedAttentionCall call{};
  call.blocks = plan.blocks.data();
  call.pages = plan.paths.pages.data();
  call.position = plan.paths.position.data();
  call.end = plan.end.data();
  call.heads = shape.heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.window = attention_window(shape);
  call.q = q.data;
  call.key_cache = key_cache;
  call.value_cache = value_cache;
  call.out = out.data;
  const CachedAttentionKernels& kernels = cached_attention_kernels_for(isa_);
  std::int64_t floats = 0;
  for (const CacheChunk& chunk : plan.chunks) floats = std::max(floats, kernels.scratch(call, chunk));
  const ThreadScratch scratch(*this, floats);
  const auto attend = kernels.attend[index_of(q.dtype)];
  // The next step's rows are the same, and find their keys and values where they left them.
  const auto chunks = static_cast<std::int64_t>(plan.chunks.size());
  parallel_kept_items(threads_, chunks * shape.kv_heads, [&](std::int64_t item, int thread) {
    attend(call, plan.chunks[static_cast<std::size_t>(item % chunks)], static_cast<int>(item / chunks),
           scratch.of(thread));
  });
}

}  // namespace tempora
