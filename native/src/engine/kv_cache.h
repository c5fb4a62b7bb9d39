// The paged KV cache of a running generation: where each node's keys and values lie, and who still needs them.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend/backend.h"
#include "model_shape.h"

namespace tempora {

constexpr std::int64_t pages_for(std::int64_t tokens) { return (tokens + kCachePage - 1) / kCachePage; }

// Pages of one size: those that came back last go out first.
class PagePool {
 public:
  explicit PagePool(std::int32_t pages);

  std::int64_t available() const { return static_cast<std::int64_t>(free_.size()); }
  std::vector<std::int32_t> take(std::int64_t count);  // count <= available()
  void give_back(const std::vector<std::int32_t>& pages);

 private:
  std::vector<std::int32_t> free_;  // a stack
};

// The keys and values of all layers. Every layer uses the same page numbers.
class KvCache {
 public:
  KvCache(Backend& backend, const ModelShape& shape, DType dtype, std::int32_t pages);

  void* keys(int layer) const { return keys_[static_cast<std::size_t>(layer)].data(); }
  void* values(int layer) const { return values_[static_cast<std::size_t>(layer)].data(); }
  PagePool& pool() { return pool_; }

 private:
  std::vector<Buffer> keys_, values_;  // [layers]
  PagePool pool_;
};

// A run of tokens in the cache.
struct CachedTokens {
  std::vector<std::int32_t> pages;
  std::int32_t length = 0;

  std::int32_t slot(std::int32_t token) const {
    return pages[static_cast<std::size_t>(token / kCachePage)] * kCachePage + token % kCachePage;
  }
};

// Builds the paths of one forward pass, row by row. Pages that a row and the one before it have at the same place of
// their paths are named once.
class PathBuilder {
 public:
  // The segments that follow belong to a new row that looks from `position`.
  void begin_row(std::int32_t position, std::int32_t group);
  void add_segment(const CachedTokens& tokens, std::int32_t length);  // nothing where length is 0
  // A row that looks along the same path as the last one.
  void repeat_row();
  CachePaths take();

 private:
  // Of the row before, the segment at the place of the next one of this row; null where it has none.
  const CachePaths::Segment* beside() const;

  CachePaths paths_;
};

}  // namespace tempora
