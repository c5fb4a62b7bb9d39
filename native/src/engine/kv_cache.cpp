#include "kv_cache.h"

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

void PathBuilder::add_segment(const CachedTokens& tokens, std::int32_t length) {
  if (length == 0) return;
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
