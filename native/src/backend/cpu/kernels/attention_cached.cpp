// Rows here are a chunk's rows times the query heads of one key/value head; vectors run over keys (scores) and over
// head dimensions (outputs).
//
// All scores of a row are in memory, each at the place of its position, before its softmax begins: how the path was cut
// into blocks has left no trace by then. A score is one chain over head dimensions, an output one chain over keys in
// the order of the path; a sum of weights has lanes by position. Keys that a row must not see weigh exactly 0, so that
// other rows may add them to its outputs.
#include "attention_cached.h"

#include "attention_scratch.h"
#include "cached_values.h"

namespace tempora::TEMPORA_ISA {
namespace {

// Floats of a cache line. Scores begin at a multiple of it, so that a position's lane does not depend on the chunk.
constexpr std::int32_t kLine = 16;

// Where the scores of a chunk's rows lie: that of position p at p - origin of its row.
struct ScoreRows {
  std::int32_t origin;
  std::int64_t stride;
};

std::int32_t first_visible(std::int32_t position, std::int32_t window) {
  return position < window ? 0 : position - window + 1;
}

// A vector of scores that holds a visible key may reach over both ends: there is a line before and one behind.
ScoreRows score_rows(const CachedAttentionCall& call, const CacheChunk& chunk) {
  const std::int32_t first = first_visible(chunk.position, call.window) / kLine * kLine;
  const std::int32_t lines = chunk.end > first ? (chunk.end - first + kLine - 1) / kLine + 2 : 2;
  // An odd number, as rows at a large power of two from each other would share few places of the first cache.
  return {first - kLine, static_cast<std::int64_t>(lines | 1) * kLine};
}

struct Scratch {
  ScoreRows range;
  float *queries, *outputs;  // [rows, query_row], [rows, cache_columns]
  float* scores;             // [rows, range.stride]; weights after softmax
  float* total;              // [rows]: sums of weights
  float* turned;             // [rows, range.stride / 2]: weights for the dot product, where there is one

  template <typename T>
  std::int64_t place(const CachedAttentionCall& call, const CacheChunk& chunk, float* base) {
    const std::int64_t rows = static_cast<std::int64_t>(chunk.rows) * (call.heads / call.kv_heads);
    ScratchCursor cursor(base);
    range = score_rows(call, chunk);
    queries = cursor.take(rows * query_row<T>(call.head_dim));
    outputs = cursor.take(rows * cache_columns(call.head_dim));
    scores = cursor.take(rows * range.stride);
    total = cursor.take(rows);
    turned = cursor.take(kDotPairs<T> ? rows * range.stride / 2 : 0);
    return cursor.used();
  }
};

template <typename T>
std::int64_t scratch_floats(const CachedAttentionCall& call, const CacheChunk& chunk) {
  return Scratch{}.place<T>(call, chunk, nullptr);
}

VecI lanes_from(std::int32_t first) {
  VecI lanes;
  for (int i = 0; i < kWidth; ++i) lanes[i] = first + i;
  return lanes;
}

// Scores [begin, end) of a row become weights, all others of `count` become 0. Returns the sum of the weights.
float soften_row(float* scores, std::int64_t count, std::int64_t begin, std::int64_t end) {
  if (begin >= end) {
    clear(scores, count);
    return 0;
  }
  const std::int64_t first = begin / kWidth * kWidth, last = (end - 1) / kWidth * kWidth;
  clear(scores, first);
  clear(scores + last + kWidth, count - last - kWidth);
  const VecI head = lanes_from(0), tail = lanes_from(static_cast<std::int32_t>(last - first));
  const auto from = static_cast<std::int32_t>(begin - first), to = static_cast<std::int32_t>(end - first);
  store(scores + first, head >= from ? load(scores + first) : splat(kHiddenScore));
  store(scores + last, tail < to ? load(scores + last) : splat(kHiddenScore));

  VecF largest[2] = {splat(kHiddenScore), load(scores + last)};
  for (std::int64_t i = first; i < last; i += 2 * kWidth) {
    largest[0] = max(load(scores + i), largest[0]);
    largest[1] = max(load(scores + i + kWidth), largest[1]);
  }
  const float maximum = max_lane(max(largest[1], largest[0]));
  VecF sums{};
  for (std::int64_t i = first; i <= last; i += kWidth) {
    const VecF weight = exp2(load(scores + i) - maximum);
    store(scores + i, weight);
    sums += weight;
  }
  return sum(sums);
}

struct HeadShape {
  std::int32_t group, head_dim;
  std::int64_t columns;
};

// What a block's rows see of it.
struct BlockRows {
  std::int64_t row, rows;   // of the scratch
  std::int32_t begin, end;  // keys that at least one of the rows sees
  std::int64_t at;          // where the first key's score lies
};

BlockRows rows_of(const CachedAttentionCall& call, const CacheChunk& chunk, const CacheBlock& block,
                  const HeadShape& shape, const ScoreRows& range) {
  const std::int32_t* positions = call.position + chunk.row;
  std::int32_t oldest = positions[block.row_begin];
  for (std::int32_t row = block.row_begin; row < block.row_end; ++row) {
    if (positions[row] < oldest) oldest = positions[row];
  }
  const std::int32_t begin = first_visible(oldest, call.window) - block.position;
  const std::int32_t group = shape.group;
  return {std::int64_t{block.row_begin} * group, std::int64_t{block.row_end - block.row_begin} * group,
          begin > 0 ? begin : 0, block.keys, block.position - range.origin};
}

template <typename Body>
void for_blocks(const CachedAttentionCall& call, const CacheChunk& chunk, const HeadShape& shape, const Scratch& s,
                Body body) {
  for (std::int32_t i = 0; i < chunk.blocks; ++i) {
    const CacheBlock& block = call.blocks[chunk.first_block + i];
    const BlockRows seen = rows_of(call, chunk, block, shape, s.range);
    if (seen.begin < seen.end) body(block, seen, i + 1 < chunk.blocks ? (&block)[1] : block);
  }
}

template <typename T>
void attend(const CachedAttentionCall& call, const CacheChunk& chunk, int kv_head, float* scratch) {
  const std::int32_t group = call.heads / call.kv_heads;
  const HeadShape shape{group, call.head_dim, cache_columns(call.head_dim)};
  const std::int64_t rows = static_cast<std::int64_t>(chunk.rows) * group;
  Scratch s;
  s.place<T>(call, chunk, scratch);
  const auto offset = [&](std::int64_t row) {
    const std::int64_t head = static_cast<std::int64_t>(kv_head) * group + row % group;
    return ((chunk.row + row / group) * call.heads + head) * call.head_dim;
  };
  const float scale = scaled_for_exp2(call.head_dim);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* from = static_cast<const T*>(call.q) + offset(row);
    query_row_of(from, call.head_dim, scale, s.queries + row * query_row<T>(call.head_dim));
  }
  const auto keys_of = [&](const CacheBlock& block) {
    return BlockPages<T>(call, block, kv_head, call.key_cache,
                         key_words<T>(shape.head_dim) * kNumbersPerWord<T> * kCachePageKeys);
  };
  const auto values_of = [&](const CacheBlock& block) {
    return BlockPages<T>(call, block, kv_head, call.value_cache, shape.columns * kCachePageKeys);
  };
  for_blocks(call, chunk, shape, s, [&](const CacheBlock& block, const BlockRows& seen, const CacheBlock& next) {
    const bool last = &next == &block;
    const BlockPages<T> keys = keys_of(block), ahead = last ? values_of(call.blocks[chunk.first_block]) : keys_of(next);
    const Scores<T> scores{s.queries + seen.row * query_row<T>(shape.head_dim), shape.head_dim, scale, keys, ahead,
                           s.scores + seen.row * s.range.stride + seen.at,      s.range.stride};
    for_tiles(scores, seen.rows, seen.begin / kWidth, (seen.end + kWidth - 1) / kWidth);
  });
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t in_batch = chunk.row + row / group;
    const std::int32_t first = first_visible(call.position[in_batch], call.window);
    s.total[row] = soften_row(s.scores + row * s.range.stride, s.range.stride, first - s.range.origin,
                              call.end[in_batch] - s.range.origin);
    if constexpr (kDotPairs<T>) {
      turned_weights(s.scores + row * s.range.stride, s.range.stride,
                     reinterpret_cast<T*>(s.turned) + row * s.range.stride);
    }
  }
  clear(s.outputs, rows * shape.columns);
  for_blocks(call, chunk, shape, s, [&](const CacheBlock& block, const BlockRows& seen, const CacheBlock& next) {
    const BlockPages<T> pages = values_of(block), ahead = values_of(next);
    const WeightRows<T> weights{kDotPairs<T> ? s.turned : s.scores, s.range.stride, seen.at};
    const WeightedValues<T> values{weights,    seen.row, pages,         ahead,
                                   seen.begin, seen.end, shape.columns, s.outputs + seen.row * shape.columns};
    for_tiles(values, seen.rows, 0, static_cast<int>(shape.columns / kWidth));
  });
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = s.outputs + row * shape.columns;
    T* to = static_cast<T*>(call.out) + offset(row);
    const float total = s.total[row];
    // + 0: adding products with weight 0 may have made a negative zero positive.
    for_vectors(call.head_dim, [=](auto load, auto store) { store(to, load(from) / total + 0.0f); });
  }
}

}  // namespace

const CachedAttentionKernels cached_attention_kernels = {{scratch_floats<float>, scratch_floats<Bf16>},
                                                         {attend<float>, attend<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
