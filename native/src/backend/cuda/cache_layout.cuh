// Where a token's keys and values lie in the paged KV cache. A page holds, for each key head, kCachePage tokens of C
// elements.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../cache_paths.h"

namespace tempora::device {

__host__ __device__ inline std::int64_t cache_offset(std::int64_t slot, int kv_head, int kv_heads, int head_dim) {
  const std::int64_t page = slot / kCachePage, in_page = slot % kCachePage;
  return ((page * kv_heads + kv_head) * kCachePage + in_page) * head_dim;
}

}  // namespace tempora::device
