// Engine::start_batch. Rows hold their prompts' path in a tree of computed tokens and pages of their own for what
// follows; pages are taken when they are needed. Rows of all adapters are one pass; each adapter has a tree of its own.
// A row for which there is none goes back to waiting with what it has generated, and is computed again from where the
// tree leaves off: to the same bits, since a row's follow from its path alone.
#include <algorithm>
#include <deque>
#include <map>
#include <stdexcept>

#include "decoding_pass.h"
#include "prefix_cache.h"

namespace tempora {
namespace {

// One sample. Its input is the last of its tokens; the pass that computes it predicts the next.
struct LiveRow {
  std::shared_ptr<const LiveRequest> request;
  const Adapter* adapter = nullptr;  // it is there as long as the weights' version is the same
  std::int32_t sample = 0;
  std::vector<std::int32_t> tokens;  // prompt and what was generated
  std::int32_t leaf = -1;            // of a row that was admitted: where its path in the tree ends
  std::int32_t held = 0;             // tokens of that path
  CachedTokens own;                  // the tokens after it, but for the last, which is the input

  std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size() - request->prompt.size()); }
};

}  // namespace

class PagedBatch : public LiveBatch {
 public:
  PagedBatch(std::shared_ptr<Engine::Impl> impl, LiveBatchOptions options);
  void add(LiveRequest request) override;
  void end(std::int64_t number, std::int32_t sample) override;
  LiveStep step(const CancelFlag* cancel) override;

 private:
  std::int32_t root_of(const LiveRow& row);
  bool admit(LiveRow& row);
  void admit_waiting();
  void leave(LiveRow& row);
  void make_own_pages();
  void add_prompts(CacheRows& rows);
  bool is_computed(const LiveRow& row) const;
  std::vector<LiveRow*> computed_rows();
  void add_input(CacheRows& rows, const LiveRow& row, std::int32_t group) const;
  DecodingRows next_rows(const std::vector<LiveRow*>& rows, CacheRows prompts) const;
  SampledTokens run(DecodingRows rows, const CancelFlag* cancel);
  void take_tokens(const std::vector<LiveRow*>& rows, const SampledTokens& sampled, LiveStep& result);

  std::shared_ptr<Engine::Impl> impl_;
  LiveBatchOptions options_;
  std::uint64_t weights_version_;
  KvCache cache_;
  DecodingPass pass_;  // where no prompt is computed and no likely token told
  PrefixCache tree_;
  std::map<std::int32_t, std::int32_t> roots_;  // in tree_, by adapter
  std::deque<LiveRow> waiting_;
  std::vector<LiveRow> active_;  // in the order of their admission
  bool broken_ = false;
};

PagedBatch::PagedBatch(std::shared_ptr<Engine::Impl> impl, LiveBatchOptions options)
    : impl_(std::move(impl)),
      options_(options),
      weights_version_(impl_->weights_version()),
      cache_(*impl_->backend, impl_->shape, impl_->parameters.dtype(),
             static_cast<std::int32_t>(options.max_cache_tokens / kCachePage)),
      pass_(*impl_, cache_, std::max(1, options.max_rows)),
      tree_(cache_.pool()) {
  if (options.max_rows < 1) throw std::invalid_argument("max_rows must be at least 1");
}

void PagedBatch::add(LiveRequest request) {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t most = impl_->shape.max_positions - prompt;
  if (prompt < 1 || most < 1 || request.max_new_tokens < 1) throw std::invalid_argument("nothing can be generated");
  request.max_new_tokens = static_cast<std::int32_t>(std::min<std::int64_t>(most, request.max_new_tokens));
  // Alone in the cache, with its path in one run and its own pages after it, a row must fit.
  if (pages_for(prompt + request.max_new_tokens) + 1 > options_.max_cache_tokens / kCachePage) {
    throw std::invalid_argument("the cache is too small for this request");
  }
  const Adapter* adapter = impl_->adapters.usable(request.adapter);
  const auto shared = std::make_shared<const LiveRequest>(std::move(request));
  for (std::int32_t sample = 0; sample < shared->samples; ++sample) {
    LiveRow& row = waiting_.emplace_back();
    row.request = shared;
    row.adapter = adapter;
    row.sample = sample;
    row.tokens = shared->prompt;
  }
}

void PagedBatch::end(std::int64_t number, std::int32_t sample) {
  const auto meant = [&](const LiveRow& row) {
    return row.request->number == number && (sample < 0 || row.sample == sample);
  };
  std::erase_if(waiting_, meant);
  for (LiveRow& row : active_) {
    if (meant(row)) leave(row);
  }
  std::erase_if(active_, meant);
}

std::int32_t PagedBatch::root_of(const LiveRow& row) {
  const auto [found, added] = roots_.try_emplace(row.request->adapter);
  if (added) found->second = tree_.add_root();
  return found->second;
}

// False where there is no room beside the rows that run.
bool PagedBatch::admit(LiveRow& row) {
  const std::vector<std::int32_t> path(row.tokens.begin(), row.tokens.end() - 1);
  row.leaf = tree_.hold(root_of(row), path, 1);
  if (row.leaf < 0 && active_.empty()) {
    // The tree's runs, which end within pages, leave no room: begin again, with the path in one run.
    tree_.make_room(options_.max_cache_tokens / kCachePage);
    row.leaf = tree_.hold(root_of(row), path, 1);
  }
  if (row.leaf < 0) return false;
  row.held = static_cast<std::int32_t>(path.size());
  row.own.pages = cache_.pool().take(1);
  return true;
}

void PagedBatch::admit_waiting() {
  while (!waiting_.empty() && active_.size() < static_cast<std::size_t>(options_.max_rows)) {
    if (!admit(waiting_.front())) {
      if (active_.empty()) throw OutOfMemory("a row does not fit into the empty KV cache");
      return;
    }
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// What the row has computed stays in the tree until its pages are wanted.
void PagedBatch::leave(LiveRow& row) {
  std::vector<std::int32_t> computed(row.tokens.begin() + row.held, row.tokens.begin() + row.held + row.own.length);
  tree_.adopt(row.leaf, std::move(computed), std::move(row.own));
  tree_.release(row.leaf);
  row.own = {};
  row.leaf = -1;
  row.held = 0;
}

// A page for each row whose next token needs one; the youngest rows give way.
void PagedBatch::make_own_pages() {
  for (std::size_t i = 0; i < active_.size(); ++i) {
    const auto full = [&] {
      return active_[i].own.length == static_cast<std::int32_t>(active_[i].own.pages.size()) * kCachePage;
    };
    while (i < active_.size() && full()) {
      if (tree_.make_room(1)) {
        active_[i].own.pages.push_back(cache_.pool().take(1).front());
        continue;
      }
      leave(active_.back());
      waiting_.push_front(std::move(active_.back()));
      active_.pop_back();
    }
  }
}

// Tokens of paths that are not computed yet, parents first, as many as one pass takes: others wait for their next token
// as long as that takes.
void PagedBatch::add_prompts(CacheRows& rows) {
  const Budget budget = impl_->backend->budget();
  for (const LiveRow& row : active_) {
    const std::vector<std::int32_t> path = tree_.path(row.leaf);
    std::int32_t position = 0;
    for (std::size_t depth = 0; depth < path.size(); ++depth) {
      PrefixNode& node = tree_.node(path[depth]);
      const auto group = static_cast<std::int32_t>(rows.tokens.size());
      for (; node.computed < node.cache.length; ++node.computed) {
        if (rows.full(budget)) return;
        const std::int32_t at = node.computed;
        rows.begin(node.tokens[static_cast<std::size_t>(at)], position + at, node.cache.slot(at), group, row.adapter);
        for (std::size_t above = 0; above < depth; ++above) {
          const CachedTokens& whole = tree_.node(path[above]).cache;
          rows.paths.add_segment(whole, whole.length);
        }
        rows.paths.add_segment(node.cache, at + 1);
      }
      position += node.cache.length;
    }
  }
}

bool PagedBatch::is_computed(const LiveRow& row) const {
  const std::vector<std::int32_t> path = tree_.path(row.leaf);
  return std::all_of(path.begin(), path.end(),
                     [&](std::int32_t index) { return tree_.node(index).computed == tree_.node(index).cache.length; });
}

// The rows that get a token, those of one adapter together: a run of rows costs two narrow products.
std::vector<LiveRow*> PagedBatch::computed_rows() {
  std::vector<LiveRow*> rows;
  for (LiveRow& row : active_) {
    if (is_computed(row)) rows.push_back(&row);
  }
  std::ranges::stable_sort(rows, {}, [](const LiveRow* row) { return row->request->adapter; });
  return rows;
}

void PagedBatch::add_input(CacheRows& rows, const LiveRow& row, std::int32_t group) const {
  const auto position = static_cast<std::int32_t>(row.tokens.size()) - 1;
  rows.begin(row.tokens.back(), position, row.own.slot(row.own.length), group, row.adapter);
  for (const std::int32_t index : tree_.path(row.leaf)) {
    const CachedTokens& whole = tree_.node(index).cache;
    rows.paths.add_segment(whole, whole.length);
  }
  rows.paths.add_segment(row.own, row.own.length + 1);
}

// The rows behind what is computed of prompts.
DecodingRows PagedBatch::next_rows(const std::vector<LiveRow*>& rows, CacheRows prompts) const {
  DecodingRows next{std::move(prompts), {}, std::vector<std::int32_t>(rows.size(), -1)};
  auto group =
      static_cast<std::int32_t>(next.inputs.tokens.size());  // above those of the prompts, which are row numbers
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const LiveRow& row = *rows[i];
    if (i > 0 && rows[i - 1]->leaf != row.leaf) ++group;
    add_input(next.inputs, row, group);
    const LiveRequest& request = *row.request;
    const SampleKey key{request.prompt_key, row.sample, row.generated()};
    next.sampled.push_back({request.sampling, request.seed, key, request.likely});
  }
  return next;
}

SampledTokens PagedBatch::run(DecodingRows rows, const CancelFlag* cancel) {
  const auto count = static_cast<std::int64_t>(rows.sampled.size());
  const auto prompts = static_cast<std::int64_t>(rows.inputs.tokens.size()) - count;
  const bool likely = std::ranges::any_of(rows.sampled, [](const SampledRow& row) { return row.likely > 0; });
  if (prompts == 0 && count > 0 && !likely) {
    pass_.queue(std::move(rows), cancel);
    return pass_.take();
  }
  const ArenaScope scope(impl_->decoder.scratch());
  const Matrix x = forward_cached(*impl_, cache_, rows.inputs, count, cancel);
  return count == 0 ? SampledTokens{} : sample_tokens(*impl_, x, rows.sampled);
}

void PagedBatch::take_tokens(const std::vector<LiveRow*>& rows, const SampledTokens& sampled, LiveStep& result) {
  std::vector<std::pair<std::int64_t, std::int32_t>> ended;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    LiveRow& row = *rows[i];
    const LiveRequest& request = *row.request;
    const std::int32_t token = sampled.tokens[i];
    ++row.own.length;
    row.tokens.push_back(token);
    const bool stop =
        std::find(request.end_tokens.begin(), request.end_tokens.end(), token) != request.end_tokens.end();
    const bool full = row.generated() == request.max_new_tokens;
    result.requests.push_back(static_cast<double>(request.number));
    result.samples.push_back(row.sample);
    result.tokens.push_back(token);
    result.log_probs.push_back(sampled.log_probs[i]);
    result.finished.push_back(stop ? 1 : full ? 2 : 0);
    if (stop || full) ended.emplace_back(request.number, row.sample);
  }
  result.likely_ids = sampled.likely.ids;
  result.likely_log_probs = sampled.likely.log_probs;
  for (const auto& [number, sample] : ended) end(number, sample);
}

LiveStep PagedBatch::step(const CancelFlag* cancel) {
  if (broken_) throw std::logic_error("a batch cannot go on after a failed or cancelled step");
  if (weights_version_ != impl_->weights_version()) {
    throw std::logic_error("the weights changed while a batch was running");
  }
  broken_ = true;
  const ManyOperations many(*impl_->backend);
  LiveStep result;
  admit_waiting();
  make_own_pages();
  CacheRows inputs;
  add_prompts(inputs);
  const std::vector<LiveRow*> rows = computed_rows();
  DecodingRows next = next_rows(rows, std::move(inputs));
  if (!next.inputs.tokens.empty()) take_tokens(rows, run(std::move(next), cancel), result);
  broken_ = false;
  return result;
}

std::unique_ptr<LiveBatch> Engine::start_batch(LiveBatchOptions options) {
  impl_->parameters.require_loaded();
  return std::make_unique<PagedBatch>(impl_, options);
}

}  // namespace tempora
