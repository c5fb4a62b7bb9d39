// Which rows of a generation are under way, and what the cache holds for them: continuous batching over a paged forest.
// Rows take a page when they need one, since most end long before they must. Where there is none the youngest row gives
// its pages back and waits; what it has generated is computed again later, to the same bits, since a row's follow from
// its path alone. A node's keys and values are held once, however many rows continue it.
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
  std::int32_t active = 0;      // those of them that are under way
  bool resident = false;
};

// One sample. Its first input is the last token of its prompt: the step that computes it predicts the first new token,
// as every later step does, so that a prompt needs no logits of its own.
struct GenerationRow {
  std::int32_t request = 0, sample = 0;
  std::vector<std::int32_t> inputs;  // that token and what was generated; the next step computes the last one
  CachedTokens cache;                // of the others; pages only while the row is active
  std::int32_t queued = 0;           // passes under way, whose tokens are not known yet
  bool finished = false;

  std::int32_t generated() const { return static_cast<std::int32_t>(inputs.size()) - 1; }
};

// What must be computed before the rows under way go on.
struct Admitted {
  std::vector<std::int32_t> nodes;  // parents first
  std::vector<std::int32_t> rows;   // that had generated something before they gave way
};

class RowSchedule {
 public:
  // `request` outlives the schedule. Throws std::invalid_argument where nothing can be generated.
  RowSchedule(const GenerationRequest& request, int max_positions);

  // Pages that would hold everything at once, or what the request allows if that is less.
  std::int64_t cache_pages() const;
  // The cache's pages; before the first admission.
  void use(PagePool& pool) {
    pool_ = &pool;
    all_pages_ = pool.available();
  }

  // A page for each active row whose next input needs one; the youngest rows give way, for which all tokens must be
  // known.
  void make_pages();
  bool must_give_way() const;  // whether any does
  // Admits rows while there is room. Throws OutOfMemory where one row alone does not fit.
  Admitted admit();
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
  bool admit_next(Admitted& admitted);
  std::int64_t pages_for_next(const GenerationRow& row) const;
  std::int64_t pages_expected(const GenerationRow& row) const;
  std::int64_t pages_wanted(const GenerationRow& row) const;
  std::int64_t pages_at_most(const GenerationRow& row) const;
  std::int64_t pages_to_spare() const;
  void evict_all_but(const std::vector<std::int32_t>& path);
  void stop(GenerationRow& row);
  void hold_back_youngest();
  void release(CachedNode& node);

  const GenerationRequest& request_;
  int max_positions_;
  ForestLayout layout_;
  std::vector<std::vector<std::int32_t>> paths_;  // [R]
  std::vector<CachedNode> nodes_;
  std::vector<GenerationRow> rows_;
  std::vector<std::int32_t> active_;
  std::size_t next_ = 0;  // the first row that waits; those before it are active or finished
  PagePool* pool_ = nullptr;
  std::int64_t all_pages_ = 0;
  std::int64_t ended_rows_ = 0, ended_tokens_ = 0;
};

}  // namespace tempora
