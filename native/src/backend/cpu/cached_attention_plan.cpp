#include "cached_attention_plan.h"

#include <algorithm>

namespace tempora {
namespace {

// A block of one row's path.
struct RowBlock {
  std::int32_t first_page;
  std::int32_t position;
  std::int32_t keys;  // that the row may see, if its window lets it
  bool last;          // it sees none after them
};

std::vector<RowBlock> blocks_of(const CachePaths& paths, std::size_t row) {
  std::vector<RowBlock> blocks;
  std::int32_t position = 0;
  for (std::int32_t s = paths.row_segment[row]; s < paths.row_segment[row + 1]; ++s) {
    const CachePaths::Segment& segment = paths.segments[s];
    for (std::int32_t key = 0; key < segment.length; key += kCacheBlockKeys) {
      const std::int32_t length = std::min(kCacheBlockKeys, segment.length - key);
      const std::int32_t seen = std::min(length, paths.position[row] - position - key + 1);
      if (seen > 0) blocks.push_back({segment.first_page + key / kCachePage, position + key, seen, false});
    }
    position += segment.length;
  }
  if (!blocks.empty()) blocks.back().last = true;
  return blocks;
}

// Whether one block serves both rows: the pages of one are the first pages of the other, and a row that sees fewer
// keys is at the end of its path.
bool shared(const CachePaths& paths, const RowBlock& a, const RowBlock& b) {
  if (a.position != b.position) return false;
  if (a.keys != b.keys && !(a.keys < b.keys ? a : b).last) return false;
  if (a.first_page == b.first_page) return true;
  const std::int32_t pages = (std::min(a.keys, b.keys) + kCachePage - 1) / kCachePage;
  const auto begin = paths.pages.begin();
  return std::equal(begin + a.first_page, begin + a.first_page + pages, begin + b.first_page);
}

// Adds block number b of the rows from `begin` on that share it; returns the row after them.
std::int32_t add_block(CpuCachePlan& plan, const std::vector<std::vector<RowBlock>>& paths, std::size_t b,
                       std::int32_t begin) {
  RowBlock most = paths[begin][b];
  const auto rows = static_cast<std::int32_t>(paths.size());
  std::int32_t end = begin + 1;
  for (; end < rows && paths[end].size() > b && shared(plan.paths, most, paths[end][b]); ++end) {
    const RowBlock& other = paths[end][b];
    if (other.keys > most.keys) {
      most = other;
    } else if (other.keys == most.keys) {
      most.last = most.last && other.last;
    }
  }
  plan.blocks.push_back({most.first_page, most.position, most.keys, begin, end});
  return end;
}

void add_chunk(CpuCachePlan& plan, std::int32_t row, std::int32_t rows) {
  std::vector<std::vector<RowBlock>> paths;
  std::size_t longest = 0;
  CacheChunk chunk{row, rows, static_cast<std::int32_t>(plan.blocks.size()), 0, plan.paths.position[row], 0};
  for (std::int32_t i = 0; i < rows; ++i) {
    paths.push_back(blocks_of(plan.paths, static_cast<std::size_t>(row + i)));
    longest = std::max(longest, paths.back().size());
    plan.end.push_back(paths.back().empty() ? 0 : paths.back().back().position + paths.back().back().keys);
    chunk.position = std::min(chunk.position, plan.paths.position[row + i]);
    chunk.end = std::max(chunk.end, plan.end.back());
  }
  for (std::size_t b = 0; b < longest; ++b) {
    for (std::int32_t begin = 0; begin < rows;) {
      begin = paths[begin].size() > b ? add_block(plan, paths, b, begin) : begin + 1;
    }
  }
  chunk.blocks = static_cast<std::int32_t>(plan.blocks.size()) - chunk.first_block;
  plan.chunks.push_back(chunk);
}

}  // namespace

std::unique_ptr<CpuCachePlan> make_cache_plan(CachePaths paths, int threads) {
  auto plan = std::make_unique<CpuCachePlan>();
  plan->paths = std::move(paths);
  const std::vector<std::int32_t>& group = plan->paths.group;
  const auto rows = static_cast<std::int32_t>(group.size());
  const int parts = std::max(threads, (rows + kCacheChunkRows - 1) / kCacheChunkRows);
  const int most = (rows + parts - 1) / parts;
  for (std::int32_t begin = 0, end; begin < rows; begin = end) {
    for (end = begin + 1; end < rows && end - begin < most && group[end] == group[begin];) ++end;
    add_chunk(*plan, begin, end - begin);
  }
  return plan;
}

}  // namespace tempora
