// What cached attention works out of the rows' paths once for all layers.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend.h"

namespace tempora {

// Keys that are attended to at once, counted from the start of their segment, so that a row's split does not depend on
// the other rows. Each split gives a part of the row's result.
constexpr std::int32_t kSplitKeys = 128;
// Rows that read the same keys together.
constexpr std::int32_t kSplitRows = 8;

// Split number `split` of the paths of rows [row, row + rows): the same keys, of which a row sees those up to its
// position.
struct CacheSplit {
  std::int32_t first_page, position, keys;
  std::int32_t row, rows, split;
};

struct CacheSplits {
  std::vector<CacheSplit> single, common;  // of one row, of several
  std::vector<std::int32_t> part_start;    // [M + 1] the parts of row m are [part_start[m], part_start[m + 1])
};

CacheSplits split_paths(const CachePaths& paths);

// How much of everything a plan may have.
struct PlanRoom {
  std::size_t single = 0, common = 0, parts = 0, rows = 0, pages = 0;
};

PlanRoom room_for(const CachePaths& paths, const CacheSplits& splits);
PlanRoom with_room_to_grow(const PlanRoom& room);

// The splits and what they speak of, on the device: where they lie stays the same when the plan is changed.
class CudaCachePlan : public CachePlan {
 public:
  CudaCachePlan(Backend& backend, const CachePaths& paths, const CacheSplits& splits, const PlanRoom& room);
  // False, and nothing was done, where there is no room for those paths.
  bool change(Backend& backend, const CachePaths& paths, const CacheSplits& splits);

  const PlanRoom& room() const { return room_; }
  const std::int32_t* counts() const { return at<std::int32_t>(0); }  // of single splits, of common ones
  const CacheSplit* single() const { return at<CacheSplit>(single_); }
  const CacheSplit* common() const { return at<CacheSplit>(common_); }
  const std::int32_t* part_start() const { return at<std::int32_t>(part_start_); }
  const std::int32_t* position() const { return at<std::int32_t>(position_); }
  const std::int32_t* pages() const { return at<std::int32_t>(pages_); }

 private:
  void copy_in(Backend& backend, const CachePaths& paths, const CacheSplits& splits) const;
  template <typename T>
  const T* at(std::size_t offset) const {
    return reinterpret_cast<const T*>(static_cast<const char*>(arrays_.data()) + offset);
  }

  PlanRoom room_;
  std::size_t single_, common_, part_start_, position_, pages_;
  Buffer arrays_;
};

}  // namespace tempora
