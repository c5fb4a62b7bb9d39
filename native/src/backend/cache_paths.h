// The paged KV cache as an operation sees it: which pages hold which keys of which rows.
#pragma once

#include <cstdint>
#include <vector>

namespace tempora {

// Pages of kCachePage tokens; the layout inside a page is the backend's own.
constexpr int kCachePage = 16;

// The paths that M query rows see in a paged KV cache. Row m sees segments [row_segment[m], row_segment[m+1]); a
// segment is `length` consecutive tokens of the path, lying in pages page[first_page ...], starting at offset 0 of
// the first. The keys' positions count up from 0 along a row's segments; row m sees keys at positions
// <= position[m] and > position[m] - window. Rows of one `group` number have the same leading segments: all but the
// last of each row's segments are theirs in common, so that a backend may read the shared keys once.
struct CachePaths {
  struct Segment {
    std::int32_t first_page;
    std::int32_t length;
  };
  std::vector<std::int32_t> row_segment;  // [M + 1]
  std::vector<Segment> segments;
  std::vector<std::int32_t> pages;
  std::vector<std::int32_t> position;  // [M]
  std::vector<std::int32_t> group;     // [M], ascending
};

class CachePlan {
 public:
  virtual ~CachePlan() = default;
};

}  // namespace tempora
