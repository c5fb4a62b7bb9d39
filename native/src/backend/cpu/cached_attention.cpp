#include "cached_attention_plan.h"

#include <algorithm>
#include <cstring>

#include "attention_scratch.h"
#include "cpu_backend.h"
#include "kernels/norm.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

static_assert(kCachePageKeys == kCachePage);

// One token of k and v [kv_heads · head_dim] to its slot.
template <typename T>
void write_token(const T* k, const T* v, std::int32_t slot, const AttentionShape& shape, T* keys, T* values) {
  constexpr int kNumbers = kNumbersPerWord<T>;
  const std::int64_t columns = cache_columns(shape.head_dim), words = key_words<T>(shape.head_dim);
  const std::int64_t whole = shape.head_dim / kNumbers;
  const std::int64_t page = slot / kCachePage, offset = slot % kCachePage;
  for (int head = 0; head < shape.kv_heads; ++head, k += shape.head_dim, v += shape.head_dim) {
    const std::int64_t first = (page * shape.kv_heads + head) * kCachePage;
    T* key = keys + (first * words + offset) * kNumbers;
    for (std::int64_t word = 0; word < whole; ++word) {
      std::memcpy(key + word * kCachePage * kNumbers, k + word * kNumbers, kNumbers * sizeof(T));
    }
    if (whole < words) {  // half a word
      key[whole * kCachePage * kNumbers] = k[shape.head_dim - 1];
      key[whole * kCachePage * kNumbers + 1] = T{0};
    }
    T* value = values + (first + offset / kNumbers * kNumbers) * columns + (kNumbers - 1 - offset % kNumbers);
    for (std::int64_t c = 0; c < columns; ++c) value[c * kNumbers] = c < shape.head_dim ? v[c] : T{0};
  }
}

template <typename T>
void write_range(const Matrix& k, const Matrix& v, const std::int32_t* slots, const AttentionShape& shape, void* keys,
                 void* values, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    write_token(static_cast<const T*>(k.data) + row * k.cols, static_cast<const T*>(v.data) + row * k.cols, slots[row],
                shape, static_cast<T*>(keys), static_cast<T*>(values));
  }
}

// Keys go one word to a cache line, and values of bf16 every second number, which takes some ten times as long as a
// copy.
std::int64_t written_grain(const Matrix& k) { return row_grain(16 * k.cols); }

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
  const auto write = k.dtype == DType::f32 ? write_range<float> : write_range<std::uint16_t>;
  parallel_ranges(threads_, k.rows, written_grain(k), 1, [&](std::int64_t begin, std::int64_t end) {
    write(k, v, slots, shape, key_cache, value_cache, begin, end);
  });
}

// A row is rotated and written by one thread, at once: each region costs what its threads wait for each other.
void CpuBackend::attention_inputs(const AttentionInputs& inputs) {
  const Matrix &q = inputs.q.out, &k = inputs.k.out, &v = inputs.v.out;
  const CachePlaces& cache = inputs.cache;
  if (cache.slots == nullptr || q.rows == 0) return Backend::attention_inputs(inputs);
  require_dense("attention_inputs", {q, k, v});
  require(q.rows == k.rows && k.rows == v.rows && k.cols == v.cols && q.dtype == k.dtype && k.dtype == v.dtype,
          "attention_inputs: queries, keys and values of as many rows");
  add_biases_and_norms(inputs);
  const AttentionShape& shape = inputs.shape;
  const int half = shape.head_dim / 2;
  const std::int32_t largest = *std::max_element(inputs.positions, inputs.positions + q.rows);
  const float* table = rotary_table(inputs.frequencies, half, largest);
  const auto rotate = norm_kernels_for(isa_).rope[index_of(q.dtype)];
  const auto write = q.dtype == DType::f32 ? write_range<float> : write_range<std::uint16_t>;
  parallel_ranges(threads_, q.rows, written_grain(k), 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int32_t* positions = inputs.positions + begin;
    rotate(element(q, begin * q.cols), positions, table, 1.0f, end - begin, shape.heads, shape.head_dim);
    rotate(element(k, begin * k.cols), positions, table, 1.0f, end - begin, shape.kv_heads, shape.head_dim);
    write(k, v, cache.slots, shape, cache.keys, cache.values, begin, end);
  });
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
  for (const CacheChunk& chunk : plan.chunks)
    floats = std::max(floats, kernels.scratch[index_of(q.dtype)](call, chunk));
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
