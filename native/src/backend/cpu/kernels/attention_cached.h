// Attention of decoding rows over a paged cache. A row's bits follow from its query and the keys and values that it
// sees, in their order and at their positions: not from the pages and segments they lie in, nor from other rows.
//
// Layout of a page, for each key/value head, in words of 4 bytes that hold one f32 number or two of bf16: keys
// [key_words, kCachePage], a word of consecutive head dimensions, so that scores of a page's keys are vectors; values
// [kCachePage / numbers of a word, cache_columns(head_dim)], a word of consecutive keys, the earlier one in its upper
// half. Zeros past head_dim.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr int kCachePageKeys = 16;
// Keys of a segment that are read together, so that they stay in the caches from one tile of rows to the next.
constexpr int kCacheBlockKeys = 128;

constexpr std::int64_t cache_columns(int head_dim) { return (head_dim + 15) / 16 * 16; }

template <typename T>
constexpr int kNumbersPerWord = static_cast<int>(4 / sizeof(T));

template <typename T>
constexpr std::int64_t key_words(int head_dim) {
  return (head_dim + kNumbersPerWord<T> - 1) / kNumbersPerWord<T>;
}

// A block of a segment, read at once for rows [row_begin, row_end) of a chunk. A row that sees fewer of its keys sees
// no key after them.
struct CacheBlock {
  std::int32_t first_page;  // into pages
  std::int32_t position;    // of the first key
  std::int32_t keys;
  std::int32_t row_begin, row_end;
};

struct CacheChunk {
  std::int32_t row, rows;
  std::int32_t first_block, blocks;  // of each row in the order of its path
  std::int32_t position, end;        // the least position and the largest end of the rows
};

struct CachedAttentionCall {
  const CacheBlock* blocks;
  const std::int32_t* pages;
  const std::int32_t* position;  // [M]
  const std::int32_t* end;       // [M] a row sees keys at positions (position - window, end)
  std::int32_t heads, kv_heads, head_dim;
  std::int32_t window;  // more than any position where all is visible
  const void* q;        // [M, heads · head_dim]
  const void *key_cache, *value_cache;
  void* out;
};

struct CachedAttentionKernels {
  // Floats of scratch that attend needs for the chunk: scores of its rows' whole visible paths, above all. Indexed by
  // DType, as attend.
  std::int64_t (*scratch[2])(const CachedAttentionCall& call, const CacheChunk& chunk);
  // The chunk's rows of out, for the query heads of kv_head. Indexed by DType.
  void (*attend[2])(const CachedAttentionCall& call, const CacheChunk& chunk, int kv_head, float* scratch);
};

TEMPORA_DECLARE_KERNELS(CachedAttentionKernels, cached_attention_kernels)

}  // namespace tempora
