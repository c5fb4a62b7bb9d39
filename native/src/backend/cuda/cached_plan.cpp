#include "cached_plan.h"

#include <algorithm>

namespace tempora {
namespace {

std::vector<CacheSplit> splits_of(const CachePaths& paths, std::int32_t row) {
  std::vector<CacheSplit> splits;
  std::int32_t position = 0;
  const auto r = static_cast<std::size_t>(row);
  for (std::int32_t s = paths.row_segment[r]; s < paths.row_segment[r + 1]; ++s) {
    const CachePaths::Segment& segment = paths.segments[static_cast<std::size_t>(s)];
    for (std::int32_t key = 0; key < segment.length; key += kSplitKeys) {
      const std::int32_t length = std::min(kSplitKeys, segment.length - key);
      const std::int32_t seen = std::min(length, paths.position[r] - position - key + 1);
      if (seen <= 0) break;
      const auto number = static_cast<std::int32_t>(splits.size());
      splits.push_back({segment.first_page + key / kCachePage, position + key, seen, row, 1, number});
    }
    position += segment.length;
  }
  return splits;
}

// One may go on behind the other's end.
bool same_keys(const CachePaths& paths, const CacheSplit& a, const CacheSplit& b) {
  if (a.position != b.position) return false;
  const std::int32_t pages = (std::min(a.keys, b.keys) + kCachePage - 1) / kCachePage;
  const auto begin = paths.pages.begin();
  return std::equal(begin + a.first_page, begin + a.first_page + pages, begin + b.first_page);
}

}  // namespace

CacheSplits split_paths(const CachePaths& paths) {
  CacheSplits result;
  result.part_start.push_back(0);
  std::vector<CacheSplit> open;  // the splits of the rows before, by number, to which a row may still be added
  const auto rows = static_cast<std::int32_t>(paths.position.size());
  const auto close = [&](std::size_t from) {
    for (std::size_t i = from; i < open.size(); ++i)
      (open[i].rows == 1 ? result.single : result.common).push_back(open[i]);
    open.resize(std::min(open.size(), from));
  };
  for (std::int32_t row = 0; row < rows; ++row) {
    const auto r = static_cast<std::size_t>(row);
    if (row > 0 && paths.group[r] != paths.group[r - 1]) close(0);
    const std::vector<CacheSplit> splits = splits_of(paths, row);
    result.part_start.push_back(result.part_start.back() + static_cast<std::int32_t>(splits.size()));
    std::size_t shared = 0;
    while (shared < std::min(open.size(), splits.size()) && open[shared].rows < kSplitRows &&
           same_keys(paths, open[shared], splits[shared])) {
      CacheSplit& split = open[shared];
      if (splits[shared].keys > split.keys) {
        split.keys = splits[shared].keys;
        split.first_page = splits[shared].first_page;
      }
      ++open[shared++].rows;
    }
    close(shared);
    open.insert(open.end(), splits.begin() + static_cast<std::ptrdiff_t>(shared), splits.end());
  }
  close(0);
  return result;
}

}  // namespace tempora
