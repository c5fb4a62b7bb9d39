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
  if (a.first_page == b.first_page) return true;
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

PlanRoom room_for(const CachePaths& paths, const CacheSplits& splits) {
  return {splits.single.size(), splits.common.size(), static_cast<std::size_t>(splits.part_start.back()),
          paths.position.size(), paths.pages.size()};
}

// Each row has a split more after kSplitKeys tokens.
PlanRoom with_room_to_grow(const PlanRoom& room) {
  return {2 * room.single + 16, 2 * room.common + 16, 2 * room.parts + 32, room.rows, 2 * room.pages + 64};
}

CudaCachePlan::CudaCachePlan(Backend& backend, const CachePaths& paths, const CacheSplits& splits, const PlanRoom& room)
    : room_(room),
      single_(2 * sizeof(std::int32_t)),
      common_(single_ + room.single * sizeof(CacheSplit)),
      part_start_(common_ + room.common * sizeof(CacheSplit)),
      position_(part_start_ + (room.rows + 1) * sizeof(std::int32_t)),
      pages_(position_ + room.rows * sizeof(std::int32_t)),
      arrays_(backend.allocate(pages_ + room.pages * sizeof(std::int32_t), MemoryUse::workspace)) {
  copy_in(backend, paths, splits);
}

bool CudaCachePlan::change(Backend& backend, const CachePaths& paths, const CacheSplits& splits) {
  const PlanRoom wanted = room_for(paths, splits);
  if (wanted.rows != room_.rows || wanted.single > room_.single || wanted.common > room_.common ||
      wanted.parts > room_.parts || wanted.pages > room_.pages) {
    return false;
  }
  copy_in(backend, paths, splits);
  return true;
}

// In one piece, without the room behind the pages: small copies cost more than their bytes. Who was asked to read the
// old arrays does so before.
void CudaCachePlan::copy_in(Backend& backend, const CachePaths& paths, const CacheSplits& splits) const {
  std::vector<char> host(pages_ + paths.pages.size() * sizeof(std::int32_t));
  const auto put = [&](std::size_t at, const auto& array) {
    std::copy_n(reinterpret_cast<const char*>(array.data()), array.size() * sizeof(array[0]), host.data() + at);
  };
  put(0, std::vector{static_cast<std::int32_t>(splits.single.size()), static_cast<std::int32_t>(splits.common.size())});
  put(single_, splits.single);
  put(common_, splits.common);
  put(part_start_, splits.part_start);
  put(position_, paths.position);
  put(pages_, paths.pages);
  backend.copy_in(arrays_.data(), host.data(), host.size());
}

}  // namespace tempora
