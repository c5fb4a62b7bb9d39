// Where the keys or values of a block are in the cache.
#pragma once

#include "attention_cached.h"

namespace tempora::TEMPORA_ISA {

constexpr int kBlockPages = kCacheBlockKeys / kCachePageKeys;

// The pages of a block, of one key/value head.
template <typename T>
struct BlockPages {
  const T* at[kBlockPages];

  // `cache` has `numbers` of them a page and head. Behind the block's end: the last page again.
  BlockPages(const CachedAttentionCall& call, const CacheBlock& block, int kv_head, const void* cache,
             std::int64_t numbers) {
    const std::int32_t last = (block.keys - 1) / kCachePageKeys;
    for (std::int32_t page = 0; page < kBlockPages; ++page) {
      const std::int64_t number = call.pages[block.first_page + (page < last ? page : last)];
      at[page] = static_cast<const T*>(cache) + (number * call.kv_heads + kv_head) * numbers;
    }
  }
};

}  // namespace tempora::TEMPORA_ISA
