// What cached attention works out of the rows' paths once for all layers.
#pragma once

#include <vector>

#include "../backend.h"
#include "kernels/attention_cached.h"

namespace tempora {

// Rows whose common keys are read at once, by one thread, at most: fewer where there are too few rows for all threads.
constexpr int kCacheChunkRows = 8;

struct CpuCachePlan : CachePlan {
  CachePaths paths;
  std::vector<CacheChunk> chunks;
  std::vector<CacheBlock> blocks;
  std::vector<std::int32_t> end;  // [M]: the keys that a row sees lie before it
};

std::unique_ptr<CpuCachePlan> make_cache_plan(CachePaths paths, int threads);

}  // namespace tempora
