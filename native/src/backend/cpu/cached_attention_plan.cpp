#include "cached_attention_plan.h"

#include <algorithm>

namespace tempora {
namespace {

constexpr int kBlockPages = kCacheBlockKeys / kCachePage;

// A block of one row's path.
struct RowBlock {
  std::int32_t first_page;
  std::int32_t position;
  std::int32_t keys;  // that the row may see, if its window lets it
};

std::vector<RowBlock> blocks_of(const CachePaths& paths, std::size_t row) {
  std::vector<RowBlock> blocks;
  std::int32_t position = 0;
  for (std::int32_t s = paths.row_segment[row]; s < paths.row_segment[row + 1]; ++s) {
    const CachePaths::Segment& segment = paths.segments[s];
    for (std::int32_t key = 0; key < segment.length; key += kCacheBlockKeys) {
      const std::int32_t length = std::min(kCacheBlockKeys, segment.length - key);
      const std::int32_t seen = std::min(length, paths.position[row] - position - key + 1);
      if (seen > 0) blocks.push_back({segment.first_page + key / kCachePage, position + key, seen});
    }
    position += segment.length;
  }
  return blocks;
}

// Whether the pages of one are the first pages of the other.
bool same_pages(const CachePaths& paths, const RowBlock& a, const RowBlock& b) {
  if (a.position != b.position) return false;
  if (a.first_page == b.first_page) return true;
  const std::int32_t pages = (std::min(a.keys, b.keys) + kCachePage - 1) / kCachePage;
  const auto begin = paths.pages.begin();
  return std::equal(begin + a.first_page, begin + a.first_page + pages, begin + b.first_page);
}

void add_chunk(CpuCachePlan& plan, std::int32_t row, std::int32_t rows) {
  std::vector<std::vector<RowBlock>> paths;
  std::size_t longest = 0;
  for (std::int32_t i = 0; i < rows; ++i) {
    paths.push_back(blocks_of(plan.paths, static_cast<std::size_t>(row + i)));
    longest = std::max(longest, paths.back().size());
  }
  CacheChunk chunk{row, rows, static_cast<std::int32_t>(plan.blocks.size()), 0};
  for (std::size_t b = 0; b < longest; ++b) {
    for (std::int32_t begin = 0, end; begin < rows; begin = end) {
      end = begin + 1;
      if (paths[begin].size() <= b) continue;
      RowBlock most = paths[begin][b];
      CacheBlock block{0, most.position, begin, 0, static_cast<std::int32_t>(plan.keys.size())};
      plan.keys.push_back(most.keys);
      for (; end < rows && paths[end].size() > b && same_pages(plan.paths, most, paths[end][b]); ++end) {
        plan.keys.push_back(paths[end][b].keys);
        if (paths[end][b].keys > most.keys) most = paths[end][b];
      }
      block.first_page = most.first_page;
      block.row_end = end;
      plan.blocks.push_back(block);
    }
  }
  chunk.blocks = static_cast<std::int32_t>(plan.blocks.size()) - chunk.first_block;
  plan.chunks.push_back(chunk);
}

}  // namespace

std::unique_ptr<CpuCachePlan> make_cache_plan(CachePaths paths) {
  auto plan = std::make_unique<CpuCachePlan>();
  plan->paths = std::move(paths);
  const std::vector<std::int32_t>& group = plan->paths.group;
  const auto rows = static_cast<std::int32_t>(group.size());
  for (std::int32_t begin = 0, end; begin < rows; begin = end) {
    for (end = begin + 1; end < rows && end - begin < kCacheChunkRows && group[end] == group[begin];) ++end;
    add_chunk(*plan, begin, end - begin);
  }
  return plan;
}

}  // namespace tempora
