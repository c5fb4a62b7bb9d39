// Keys and values on their way from memory.
#pragma once

#include "attention_cached.h"

namespace tempora::TEMPORA_ISA {

// Asks for what a block's pages hold, `numbers` for each key/value head, before it is wanted: pages lie apart, so that
// the processor does not foresee them.
template <typename T>
void fetch_block(const CachedAttentionCall& call, const CacheBlock& block, int kv_head, const void* cache,
                 std::int64_t numbers) {
  constexpr std::int64_t kCacheLine = 64;
  const std::int64_t bytes = numbers * static_cast<std::int64_t>(sizeof(T));
  for (std::int32_t page = 0; page * kCachePageKeys < block.keys; ++page) {
    const std::int64_t head = static_cast<std::int64_t>(call.pages[block.first_page + page]) * call.kv_heads + kv_head;
    const char* from = static_cast<const char*>(cache) + head * bytes;
    for (std::int64_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(from + i, 0, 2);
  }
}

}  // namespace tempora::TEMPORA_ISA
