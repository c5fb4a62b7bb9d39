#include "kv_cache.h"

#include <algorithm>

#include "block.h"

namespace tempora {

PagePool::PagePool(std::int32_t pages) : free_(static_cast<std::size_t>(pages)) {
  for (std::int32_t i = 0; i < pages; ++i) free_[static_cast<std::size_t>(i)] = pages - 1 - i;
}

std::vector<std::int32_t> PagePool::take(std::int64_t count) {
  std::vector<std::int32_t> pages(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<std::size_t>(count));
  return pages;
}

void PagePool::give_back(const std::vector<std::int32_t>& pages) {
  free_.insert(free_.end(), pages.rbegin(), pages.rend());
}

KvCache::KvCache(Backend& backend, const ModelShape& shape, DType dtype, std::int32_t pages) : pool_(pages) {
  for (int layer = 0; layer < shape.layers; ++layer) {
    const std::size_t bytes = backend.cache_bytes(pages, attention_shape(shape, layer), dtype);
    for (std::vector<Buffer>* buffers : {&keys_, &values_}) {
      buffers->push_back(backend.allocate(bytes, MemoryUse::cache));
      // Kernels may read whole pages and discard what lies behind the last token; it must not be NaN.
      backend.zero(buffers->back().data(), bytes);
    }
  }
}

void PathBuilder::begin_row(std::int32_t position, std::int32_t group) {
  paths_.row_segment.push_back(static_cast<std::int32_t>(paths_.segments.size()));
  paths_.position.push_back(position);
  paths_.group.push_back(group);
}

const CachePaths::Segment* PathBuilder::beside() const {
  const std::vector<std::int32_t>& starts = paths_.row_segment;
  if (starts.size() < 2) return nullptr;
  const std::size_t begin = static_cast<std::size_t>(starts[starts.size() - 2]);
  const std::size_t end = static_cast<std::size_t>(starts.back()), at = begin + paths_.segments.size() - end;
  return at < end ? &paths_.segments[at] : nullptr;
}

void PathBuilder::add_segment(const CachedTokens& tokens, std::int32_t length) {
  if (length == 0) return;
  const CachePaths::Segment* known = beside();
  if (known != nullptr && pages_for(known->length) >= pages_for(length) &&
      std::equal(tokens.pages.begin(), tokens.pages.begin() + pages_for(length),
                 paths_.pages.begin() + known->first_page)) {
    paths_.segments.push_back({known->first_page, length});
    return;
  }
  paths_.segments.push_back({static_cast<std::int32_t>(paths_.pages.size()), length});
  paths_.pages.insert(paths_.pages.end(), tokens.pages.begin(), tokens.pages.begin() + pages_for(length));
}

void PathBuilder::repeat_row() {
  const auto begin = static_cast<std::size_t>(paths_.row_segment.back()), end = paths_.segments.size();
  begin_row(paths_.position.back(), paths_.group.back());
  for (std::size_t segment = begin; segment < end; ++segment) paths_.segments.push_back(paths_.segments[segment]);
}

CachePaths PathBuilder::take() {
  paths_.row_segment.push_back(static_cast<std::int32_t>(paths_.segments.size()));
  return std::move(paths_);
}

}  // namespace tempora
