// Attention of decoding rows over a paged cache.
//
// Layout of a page, for each key/value head: keys [head_dim, kCachePage], so that scores of a page's keys are vectors;
// values [kCachePage, cache_columns(head_dim)], zeros past head_dim.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr int kCachePageKeys = 16;
// Keys that share one step of the online softmax: pages in the order of the path, starting anew with each segment. A
// row's arithmetic follows from its own path alone.
constexpr int kCacheBlockKeys = 128;

constexpr std::int64_t cache_columns(int head_dim) { return (head_dim + 15) / 16 * 16; }

// A block of a segment, read at once for rows [row_begin, row_end) of a chunk.
struct CacheBlock {
  std::int32_t first_page;  // into pages
  std::int32_t position;    // of the first key
  std::int32_t row_begin, row_end;
  std::int32_t first_keys;  // into keys: for each of the rows, how many of the block's keys it may see
};

struct CacheChunk {
  std::int32_t row, rows;
  std::int32_t first_block, blocks;
};

struct CachedAttentionCall {
  const CacheBlock* blocks;
  const std::int32_t* keys;
  const std::int32_t* pages;
  const std::int32_t* position;  // [M]
  std::int32_t heads, kv_heads, head_dim;
  std::int32_t window;  // more than any position where all is visible
  const void* q;        // [M, heads · head_dim]
  const void *key_cache, *value_cache;
  void* out;
};

struct CachedAttentionKernels {
  // Floats of scratch that one thread needs for chunks of `rows` rows.
  std::int64_t (*scratch)(int rows, int heads_per_kv_head, int head_dim);
  // The chunk's rows of out, for the query heads of kv_head. Indexed by DType.
  void (*attend[2])(const CachedAttentionCall& call, const CacheChunk& chunk, int kv_head, float* scratch);
};

TEMPORA_DECLARE_KERNELS(CachedAttentionKernels, cached_attention_kernels)

}  // namespace tempora
