// Which rows of a generation are under way, and what the cache holds for them: continuous batching over a paged forest.
// Rows are admitted while the cache has pages for all that they may generate, so that it cannot run out later. A
// node's keys and values are held once, however many rows continue it, as long as a row may still need them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine.h"
#include "kv_cache.h"

namespace tempora {

// A node of the prompts' forest, as the cache holds it.
struct CachedNode {
  CachedTokens cache;
  std::int32_t length = 0;      // tokens that the cache holds when the node is resident
  std::int32_t unfinished = 0;  // rows that still need it
  bool resident = false;
};

// One sample. Its first input is the last token of its prompt: the step that computes it predicts the first new token,
// as every later step does, so that a prompt needs no logits of its own.
struct GenerationRow {
  std::int32_t request = 0, sample = 0;
  std::int32_t input = 0;      // the token that the next step computes
  std::int32_t generated = 0;  // new tokens so far
  CachedTokens cache;
  bool finished = false;
};

class RowSchedule {
 public:
  // `request` outlives the schedule. Throws std::invalid_argument where nothing can be generated.
  RowSchedule(const GenerationRequest& request, int max_positions);

  // Pages that would hold everything at once, or what the request allows if that is less.
  std::int64_t cache_pages() const;
  // The cache's pages; before the first admission.
  void use(PagePool& pool) { pool_ = &pool; }

  // Admits rows while there is room. Returns the nodes that must be computed for them now, parents first. Throws
  // OutOfMemory where one row alone does not fit.
  std::vector<std::int32_t> admit();
  // Ends a row: what nobody needs any more is given back. Nothing for a row that has ended.
  void retire(std::int32_t row);
  // Forgets the rows that have ended; after the last retire() of a step.
  void drop_finished();
  bool done() const;

  const std::vector<std::int32_t>& active() const { return active_; }  // ascending
  GenerationRow& row(std::int32_t index) { return rows_.at(static_cast<std::size_t>(index)); }
  const GenerationRow& row(std::int32_t index) const { return rows_.at(static_cast<std::size_t>(index)); }
  const CachedNode& node(std::int32_t index) const { return nodes_[static_cast<std::size_t>(index)]; }
  const ForestLayout& layout() const { return layout_; }
  // The nodes of a request from its root to its leaf.
  const std::vector<std::int32_t>& path(std::int32_t request) const { return paths_[request]; }
  std::int32_t prompt_length(std::int32_t request) const;
  std::int32_t token_limit(std::int32_t request) const;

 private:
  bool admit_next(std::vector<std::int32_t>& new_nodes);
  std::int64_t pages_wanted(const GenerationRow& row) const;
  void evict_all_but(const std::vector<std::int32_t>& path);
  void release(CachedNode& node);

  const GenerationRequest& request_;
  int max_positions_;
  ForestLayout layout_;
  std::vector<std::vector<std::int32_t>> paths_;  // [R]
  std::vector<CachedNode> nodes_;
  std::vector<GenerationRow> rows_;
  std::vector<std::int32_t> active_;
  std::size_t next_ = 0;  // the first row that was not admitted yet
  PagePool* pool_ = nullptr;
};

}  // namespace tempora
