// Rows here are a chunk's rows times the query heads of one key/value head; vectors run over keys (scores) and over
// head dimensions (outputs). No result of a row depends on which other rows are in its tile: hidden keys weigh exactly
// 0.
#include "attention_cached.h"

#include "attention_product.h"
#include "attention_scratch.h"

namespace tempora::TEMPORA_ISA {
namespace {

constexpr int kBlockVectors = kCacheBlockKeys / kWidth;

struct Scratch {
  float *queries, *outputs;  // [rows, head_dim], [rows, cache_columns]
  float* weights;            // [rows, kCacheBlockKeys]
  float *maximum, *factor;   // [rows]
  float* sum;                // [rows, kWidth]: of each lane

  std::int64_t place(std::int64_t rows, int head_dim, float* base) {
    ScratchCursor cursor(base);
    queries = cursor.take(rows * head_dim);
    outputs = cursor.take(rows * cache_columns(head_dim));
    weights = cursor.take(rows * kCacheBlockKeys);
    maximum = cursor.take(rows);
    factor = cursor.take(rows);
    sum = cursor.take(rows * kWidth);
    return cursor.used();
  }
};

std::int64_t scratch_floats(int rows, int group, int head_dim) {
  return Scratch{}.place(static_cast<std::int64_t>(rows) * group, head_dim, nullptr);
}

// weights [rows, keys] = queries · keys, a vector of one page's keys at a time.
template <typename T>
struct Scores {
  const float* queries;
  std::int64_t head_dim;
  const T* const* key_vectors;
  float* weights;

  template <int kRows, int kVectors>
  void compute(std::int64_t row, int vector) const {
    const float* query = queries + row * head_dim;
    const T* const* keys = key_vectors + vector;
    VecF sum[kRows][kVectors] = {};
    for (std::int64_t c = 0; c < head_dim; ++c) {
      VecF columns[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) columns[v] = load(keys[v] + c * kCachePageKeys);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const float element = query[r * head_dim + c];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sum[r][v] += element * columns[v];
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* to = weights + (row + r) * kCacheBlockKeys + vector * kWidth;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(to + v * kWidth, sum[r][v]);
    }
  }
};

// outputs [rows, columns] = outputs · factor + weights · values, over keys [begin, end).
template <typename T>
struct WeightedValues {
  const float *weights, *factor;
  const T* const* value_pages;
  std::int32_t begin, end;
  std::int64_t columns;
  float* outputs;

  template <int kRows, int kVectors>
  void compute(std::int64_t row, int vector) const {
    float* to = outputs + row * columns + vector * kWidth;
    const float* weight = weights + row * kCacheBlockKeys;
    VecF sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = factor[row + r] * load(to + r * columns + v * kWidth);
    }
    for (std::int32_t key = begin; key < end;) {
      const std::int32_t page = key / kCachePageKeys, page_end = (page + 1) * kCachePageKeys;
      const T* values = value_pages[page] + key % kCachePageKeys * columns + vector * kWidth;
      for (const std::int32_t stop = page_end < end ? page_end : end; key < stop; ++key, values += columns) {
        VecF value[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) value[v] = load(values + v * kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const float element = weight[r * kCacheBlockKeys + key];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sum[r][v] += element * value[v];
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(to + r * columns + v * kWidth, sum[r][v]);
    }
  }
};

VecI lanes_from(std::int32_t first) {
  VecI lanes;
  for (int i = 0; i < kWidth; ++i) lanes[i] = first + i;
  return lanes;
}

// Scores of a row's keys [begin, end) become weights, all others of the vectors [first, last) become 0.
void soften_row(const Scratch& s, std::int64_t row, int first, int last, std::int32_t begin, std::int32_t end) {
  float* weights = s.weights + row * kCacheBlockKeys;
  if (begin >= end) {
    for (int v = first; v < last; ++v) store(weights + v * kWidth, VecF{});
    s.factor[row] = 1;
    return;
  }
  VecF largest = splat(kHiddenScore);
  for (int v = first; v < last; ++v) {
    const VecI key = lanes_from(v * kWidth);
    const VecF score = (key >= begin) & (key < end) ? load(weights + v * kWidth) : splat(kHiddenScore);
    store(weights + v * kWidth, score);
    largest = max(score, largest);
  }
  const float before = s.maximum[row], here = max_lane(largest);
  const float now = here > before ? here : before;
  const VecF factor = exp2(splat(before) - now);
  VecF sum = load(s.sum + row * kWidth) * factor;
  for (int v = first; v < last; ++v) {
    const VecF weight = exp2(load(weights + v * kWidth) - now);
    store(weights + v * kWidth, weight);
    sum += weight;
  }
  store(s.sum + row * kWidth, sum);
  s.maximum[row] = now;
  s.factor[row] = factor[0];
}

struct HeadShape {
  std::int32_t group, head_dim;
  std::int64_t columns;
};

template <typename T>
void attend_block(const CachedAttentionCall& call, const CacheChunk& chunk, const CacheBlock& block, int kv_head,
                  const HeadShape& shape, const Scratch& s) {
  const std::int32_t* keys = call.keys + block.first_keys;
  const auto first_key = [&](std::int32_t row) {
    const std::int32_t begin = call.position[chunk.row + row] - call.window + 1 - block.position;
    return begin > 0 ? begin : 0;
  };
  std::int32_t begin = kCacheBlockKeys, end = 0;
  for (std::int32_t row = block.row_begin; row < block.row_end; ++row) {
    const std::int32_t from = first_key(row), to = keys[row - block.row_begin];
    if (from >= to) continue;
    begin = from < begin ? from : begin;
    end = to > end ? to : end;
  }
  if (begin >= end) return;

  const T *key_vectors[kBlockVectors], *value_pages[kCacheBlockKeys / kCachePageKeys];
  const int first = begin / kWidth, last = (end + kWidth - 1) / kWidth;
  for (std::int32_t page = begin / kCachePageKeys; page * kCachePageKeys < end; ++page) {
    const std::int64_t head = static_cast<std::int64_t>(call.pages[block.first_page + page]) * call.kv_heads + kv_head;
    const T* page_keys = static_cast<const T*>(call.key_cache) + head * shape.head_dim * kCachePageKeys;
    constexpr int kVectors = kCachePageKeys / kWidth;
    for (int v = 0; v < kVectors; ++v) key_vectors[page * kVectors + v] = page_keys + v * kWidth;
    value_pages[page] = static_cast<const T*>(call.value_cache) + head * shape.columns * kCachePageKeys;
  }
  const std::int64_t row = static_cast<std::int64_t>(block.row_begin) * shape.group;
  const std::int64_t rows = static_cast<std::int64_t>(block.row_end - block.row_begin) * shape.group;
  float* weights = s.weights + row * kCacheBlockKeys;
  const Scores<T> scores{s.queries + row * shape.head_dim, shape.head_dim, key_vectors, weights};
  for_tiles(scores, rows, first, last);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto chunk_row = static_cast<std::int32_t>(block.row_begin + i / shape.group);
    soften_row(s, row + i, first, last, first_key(chunk_row), keys[chunk_row - block.row_begin]);
  }
  const WeightedValues<T> values{
      weights, s.factor + row, value_pages, begin, end, shape.columns, s.outputs + row * shape.columns};
  for_tiles(values, rows, 0, static_cast<int>(shape.columns / kWidth));
}

template <typename T>
void attend(const CachedAttentionCall& call, const CacheChunk& chunk, int kv_head, float* scratch) {
  const std::int32_t group = call.heads / call.kv_heads;
  const HeadShape shape{group, call.head_dim, cache_columns(call.head_dim)};
  const std::int64_t rows = static_cast<std::int64_t>(chunk.rows) * group;
  Scratch s;
  s.place(rows, call.head_dim, scratch);
  const auto offset = [&](std::int64_t row) {
    const std::int64_t head = static_cast<std::int64_t>(kv_head) * group + row % group;
    return ((chunk.row + row / group) * call.heads + head) * call.head_dim;
  };
  const float scale = scaled_for_exp2(call.head_dim);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* from = static_cast<const T*>(call.q) + offset(row);
    float* to = s.queries + row * call.head_dim;
    for_vectors(call.head_dim, [=](auto load, auto store) { store(to, load(from) * scale); });
    s.maximum[row] = kHiddenScore;
  }
  clear(s.outputs, rows * shape.columns);
  clear(s.sum, rows * kWidth);
  for (std::int32_t i = 0; i < chunk.blocks; ++i) {
    attend_block<T>(call, chunk, call.blocks[chunk.first_block + i], kv_head, shape, s);
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = s.outputs + row * shape.columns;
    T* to = static_cast<T*>(call.out) + offset(row);
    const float total = sum(load(s.sum + row * kWidth));
    // + 0: adding products with weight 0 may have made a negative zero positive.
    for_vectors(call.head_dim, [=](auto load, auto store) { store(to, load(from) / total + 0.0f); });
  }
}

}  // namespace

const CachedAttentionKernels cached_attention_kernels = {scratch_floats, {attend<float>, attend<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
