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

}  // namespace tempora
