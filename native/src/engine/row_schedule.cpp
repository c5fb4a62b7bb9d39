#include "row_schedule.h"

#include <algorithm>
#include <stdexcept>

namespace tempora {

RowSchedule::RowSchedule(const GenerationRequest& request, int max_positions)
    : request_(request),
      max_positions_(max_positions),
      layout_(layout_of(request.forest)),
      nodes_(request.forest.node_parent.size()) {
  for (std::size_t r = 0; r < request_.leaves.size(); ++r) {
    paths_.push_back(layout_.path(request_.leaves[r]));
    for (const std::int32_t node : paths_[r]) {
      nodes_[node].unfinished += request_.samples[r];
      const std::int32_t whole = layout_.node_length(node);
      // A leaf's last token is its samples' first input.
      nodes_[node].length = std::max(nodes_[node].length, node == request_.leaves[r] ? whole - 1 : whole);
    }
    const auto request_index = static_cast<std::int32_t>(r);
    if (token_limit(request_index) < 1) throw std::invalid_argument("a prompt leaves no room for new tokens");
    for (std::int32_t s = 0; s < request_.samples[r]; ++s) {
      GenerationRow row;
      row.request = request_index;
      row.sample = s;
      row.inputs = {request_.forest.tokens[layout_.node_start[request_.leaves[r] + 1] - 1]};
      rows_.push_back(std::move(row));
    }
  }
  if (request_.options.max_rows < 1) throw std::invalid_argument("max_rows must be at least 1");
}

std::int32_t RowSchedule::prompt_length(std::int32_t request) const {
  const std::int32_t leaf = request_.leaves[request];
  return layout_.node_position[leaf] + layout_.node_length(leaf);
}

std::int32_t RowSchedule::token_limit(std::int32_t request) const {
  return std::min(request_.options.max_new_tokens, max_positions_ - prompt_length(request));
}

// What would hold everything at once, or what the caller allows if that is less.
std::int64_t RowSchedule::cache_pages() const {
  std::int64_t pages = 0, row_pages = 0;
  for (const CachedNode& node : nodes_) pages += pages_for(node.length);
  for (std::size_t r = 0; r < paths_.size(); ++r) {
    row_pages = std::max(row_pages, pages_for(token_limit(static_cast<std::int32_t>(r))));
  }
  pages += row_pages * std::min<std::int64_t>(request_.options.max_rows, static_cast<std::int64_t>(rows_.size()));
  return std::min(pages, request_.options.max_cache_tokens / kCachePage);
}

// A row's own, if it comes to as many tokens as those that have ended did on average.
std::int64_t RowSchedule::pages_expected(const GenerationRow& row) const {
  const std::int64_t mean = ended_rows_ > 0 ? ended_tokens_ / ended_rows_ : 0;
  const std::int64_t tokens = std::max<std::int64_t>(static_cast<std::int64_t>(row.inputs.size()), mean);
  return pages_for(std::min<std::int64_t>(tokens, token_limit(row.request)));
}

// Pages that a row needs to be admitted: those that it is expected to take, and those of nodes that are not there.
std::int64_t RowSchedule::pages_wanted(const GenerationRow& row) const {
  std::int64_t pages = pages_expected(row);
  for (const std::int32_t node : paths_[row.request]) {
    if (!nodes_[node].resident) pages += pages_for(nodes_[node].length);
  }
  return pages;
}

// What a row may come to take by itself.
std::int64_t RowSchedule::pages_at_most(const GenerationRow& row) const {
  std::int64_t pages = pages_for(token_limit(row.request));
  for (const std::int32_t node : paths_[row.request]) pages += pages_for(nodes_[node].length);
  return pages;
}

// What active rows are expected to take yet, one at least for each that may, so that who is admitted does not soon give
// way.
std::int64_t RowSchedule::pages_to_spare() const {
  std::int64_t pages = 0;
  for (const std::int32_t index : active_) {
    const GenerationRow& one = row(index);
    const auto held = static_cast<std::int64_t>(one.cache.pages.size());
    if (held < pages_for(token_limit(one.request))) pages += std::max<std::int64_t>(1, pages_expected(one) - held);
  }
  return pages;
}

void RowSchedule::release(CachedNode& node) {
  pool_->give_back(node.cache.pages);
  node.cache = {};
  node.resident = false;
}

void RowSchedule::evict_all_but(const std::vector<std::int32_t>& path) {
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    const bool wanted = std::find(path.begin(), path.end(), static_cast<std::int32_t>(node)) != path.end();
    if (nodes_[node].resident && !wanted) release(nodes_[node]);
  }
}

// Admits the next row if there is room.
bool RowSchedule::admit_next(Admitted& admitted) {
  while (next_ < rows_.size() && rows_[next_].finished) ++next_;
  if (next_ == rows_.size() || active_.size() >= static_cast<std::size_t>(request_.options.max_rows)) return false;
  GenerationRow& row = rows_[next_];
  PagePool& pool = *pool_;
  if (pages_at_most(row) > all_pages_) {
    if (!active_.empty()) return false;
    throw OutOfMemory("one path of the generation needs " + std::to_string(pages_at_most(row) * kCachePage) +
                      " tokens of KV cache, but only " + std::to_string(request_.options.max_cache_tokens) +
                      " are allowed");
  }
  if (pages_wanted(row) + pages_to_spare() > pool.available()) {
    if (!active_.empty()) return false;
    // Nodes kept for rows further on make room; they are computed again when their turn comes.
    evict_all_but(paths_[row.request]);
  }
  for (const std::int32_t node : paths_[row.request]) {
    CachedNode& cached = nodes_[node];
    ++cached.active;
    if (cached.resident) continue;
    cached.cache = {pool.take(pages_for(cached.length)), cached.length};
    cached.resident = true;
    admitted.nodes.push_back(node);
  }
  row.cache.pages = pool.take(pages_for(static_cast<std::int64_t>(row.inputs.size())));
  const auto index = static_cast<std::int32_t>(next_);
  active_.push_back(index);
  if (row.generated() > 0) admitted.rows.push_back(index);
  ++next_;
  return true;
}

Admitted RowSchedule::admit() {
  Admitted admitted;
  while (admit_next(admitted)) {
  }
  return admitted;
}

// Until its next pass has ended, if it is to have one.
std::int64_t RowSchedule::pages_for_next(const GenerationRow& row) const {
  const auto inputs = static_cast<std::int64_t>(row.inputs.size()) + row.queued;
  return pages_for(std::min<std::int64_t>(inputs, token_limit(row.request)));
}

bool RowSchedule::must_give_way() const {
  std::int64_t wanted = 0;
  for (const std::int32_t index : active_) {
    const auto held = static_cast<std::int64_t>(row(index).cache.pages.size());
    wanted += std::max<std::int64_t>(0, pages_for_next(row(index)) - held);
  }
  return wanted > pool_->available();
}

void RowSchedule::make_pages() {
  for (std::size_t i = 0; i < active_.size(); ++i) {
    CachedTokens& cache = row(active_[i]).cache;
    const auto wanted = static_cast<std::size_t>(pages_for_next(row(active_[i])));
    while (i < active_.size() && cache.pages.size() < wanted) {
      if (pool_->available() > 0) {
        cache.pages.push_back(pool_->take(1).front());
      } else if (active_.size() > 1) {
        hold_back_youngest();
      } else {
        evict_all_but(paths_[row(active_[i]).request]);
      }
    }
  }
}

// Gives a row's own pages back. Nothing for one that is not active.
void RowSchedule::stop(GenerationRow& row) {
  if (row.cache.pages.empty()) return;
  pool_->give_back(row.cache.pages);
  row.cache = {};
  for (const std::int32_t node : paths_[row.request]) --nodes_[node].active;
}

// The nodes that no other row is at go too: prompts of rows that wait would leave those under way no room.
void RowSchedule::hold_back_youngest() {
  next_ = static_cast<std::size_t>(active_.back());
  active_.pop_back();
  stop(rows_[next_]);
  for (const std::int32_t node : paths_[rows_[next_].request]) {
    if (nodes_[node].resident && nodes_[node].active == 0) release(nodes_[node]);
  }
}

void RowSchedule::retire(std::int32_t index) {
  GenerationRow& row = this->row(index);
  if (row.finished) return;
  row.finished = true;
  if (row.generated() > 0) {
    ++ended_rows_;
    ended_tokens_ += row.generated();
  }
  stop(row);
  for (const std::int32_t node : paths_[row.request]) {
    CachedNode& cached = nodes_[node];
    if (--cached.unfinished == 0 && cached.resident) release(cached);
  }
}

void RowSchedule::drop_finished() {
  std::erase_if(active_, [&](std::int32_t row) { return rows_[row].finished; });
}

bool RowSchedule::done() const {
  return active_.empty() && std::all_of(rows_.begin() + static_cast<std::ptrdiff_t>(next_), rows_.end(),
                                        [](const GenerationRow& row) { return row.finished; });
}

}  // namespace tempora
