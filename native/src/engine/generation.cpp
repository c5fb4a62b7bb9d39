// Engine::start_generation. A prompt's keys and values are computed once and held once, however many samples continue
// it. What a row becomes depends on its path, its key and the weights, never on the rows beside it.
#include <algorithm>
#include <deque>
#include <stdexcept>
#include <utility>

#include "decoding_pass.h"
#include "row_schedule.h"

namespace tempora {

class ForestGeneration : public Generation {
 public:
  ForestGeneration(std::shared_ptr<Engine::Impl> impl, GenerationRequest request);
  ~ForestGeneration() override = default;
  GenerationStep step(int steps, const CancelFlag* cancel) override;
  void finish_rows(const std::vector<std::int32_t>& rows) override;

 private:
  void prefill(const Admitted& admitted, const CancelFlag* cancel);
  void add_input(CacheRows& inputs, const GenerationRow& row, std::int32_t number, std::int32_t group) const;
  void make_room(GenerationStep& result, const CancelFlag* cancel);
  bool queue_pass(const CancelFlag* cancel);
  void take_pass(GenerationStep& result);
  void add_row(DecodingRows& rows, const GenerationRow& row) const;
  // That of the node's tree.
  const Adapter* adapter_of(std::int32_t node) const { return adapters_[schedule_.layout().node_tree[node]]; }

  std::shared_ptr<Engine::Impl> impl_;
  GenerationRequest request_;
  std::uint64_t weights_version_;
  RowSchedule schedule_;
  std::vector<const Adapter*> adapters_;  // of each tree; they are there as long as the weights' version is the same
  KvCache cache_;
  DecodingPass pass_;
  std::deque<std::vector<std::int32_t>> queued_;  // the rows of the passes under way
  bool broken_ = false;
};

ForestGeneration::ForestGeneration(std::shared_ptr<Engine::Impl> impl, GenerationRequest request)
    : impl_(std::move(impl)),
      request_(std::move(request)),
      weights_version_(impl_->weights_version()),
      schedule_(request_, impl_->shape.max_positions),
      adapters_(impl_->adapters.of_trees(request_.forest.root_adapter, schedule_.layout().trees)),
      cache_(*impl_->backend, impl_->shape, impl_->parameters.dtype(),
             static_cast<std::int32_t>(schedule_.cache_pages())),
      pass_(*impl_, cache_, request_.options.max_rows) {
  schedule_.use(cache_.pool());
}

void ForestGeneration::finish_rows(const std::vector<std::int32_t>& rows) {
  for (const std::int32_t row : rows) schedule_.retire(row);
  schedule_.drop_finished();
}

void ForestGeneration::prefill(const Admitted& admitted, const CancelFlag* cancel) {
  const std::vector<std::int32_t>& nodes = admitted.nodes;
  const Budget budget = impl_->backend->budget();
  CacheRows rows;
  const auto flush = [&] {
    if (rows.tokens.empty()) return;
    const ArenaScope scope(impl_->decoder.scratch());
    forward_cached(*impl_, cache_, rows, 0, cancel);
    rows = {};
  };
  const ForestLayout& layout = schedule_.layout();
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const std::int32_t node = nodes[n];
    const std::vector<std::int32_t> path = layout.path(node);
    for (std::int32_t i = 0; i < schedule_.node(node).length; ++i) {
      rows.begin(request_.forest.tokens[layout.node_start[node] + i], layout.node_position[node] + i,
                 schedule_.node(node).cache.slot(i), static_cast<std::int32_t>(n), adapter_of(node));
      for (const std::int32_t above : path) {
        rows.paths.add_segment(schedule_.node(above).cache, above == node ? i + 1 : layout.node_length(above));
      }
      if (rows.full(budget)) flush();
    }
  }
  for (std::size_t r = 0; r < admitted.rows.size(); ++r) {
    const GenerationRow& row = schedule_.row(admitted.rows[r]);
    for (std::int32_t number = 0; number < row.generated(); ++number) {
      add_input(rows, row, number, static_cast<std::int32_t>(nodes.size() + r));
      if (rows.full(budget)) flush();
    }
  }
  flush();
}

void ForestGeneration::add_input(CacheRows& inputs, const GenerationRow& row, std::int32_t number,
                                 std::int32_t group) const {
  const ForestLayout& layout = schedule_.layout();
  const std::int32_t leaf = request_.leaves[row.request];
  inputs.begin(row.inputs[static_cast<std::size_t>(number)], schedule_.prompt_length(row.request) - 1 + number,
               row.cache.slot(number), group, adapter_of(leaf));
  for (const std::int32_t node : schedule_.path(row.request)) {
    const std::int32_t whole = layout.node_length(node);
    inputs.paths.add_segment(schedule_.node(node).cache, node == leaf ? whole - 1 : whole);
  }
  inputs.paths.add_segment(row.cache, number + 1);
}

// Pages for the rows under way, and rows for pages that are free.
void ForestGeneration::make_room(GenerationStep& result, const CancelFlag* cancel) {
  if (schedule_.must_give_way()) {
    while (!queued_.empty()) take_pass(result);
  }
  schedule_.make_pages();
  prefill(schedule_.admit(), cancel);
}

void ForestGeneration::add_row(DecodingRows& rows, const GenerationRow& row) const {
  const std::int32_t number = row.generated() + row.queued;
  add_input(rows.inputs, row, number, row.request);
  const SampleKey key{request_.prompt_keys[row.request], row.sample, number};
  rows.sampled.push_back({request_.options.sampling, request_.seeds[row.request], key});
}

// A pass of all rows that are to get another token. False where there are none.
bool ForestGeneration::queue_pass(const CancelFlag* cancel) {
  DecodingRows rows;
  std::vector<std::int32_t> numbers;
  for (const std::int32_t index : schedule_.active()) {
    const GenerationRow& row = schedule_.row(index);
    if (row.generated() + row.queued == schedule_.token_limit(row.request)) continue;
    numbers.push_back(index);
    add_row(rows, row);
    rows.from.push_back(-1);
    if (row.queued == 0) continue;
    // Rows are in order, and the last pass had it.
    const std::vector<std::int32_t>& last = queued_.back();
    rows.from.back() = static_cast<std::int32_t>(std::ranges::lower_bound(last, index) - last.begin());
  }
  if (numbers.empty()) return false;
  pass_.queue(std::move(rows), cancel);
  for (const std::int32_t index : numbers) ++schedule_.row(index).queued;
  queued_.push_back(std::move(numbers));
  return true;
}

// What a row got after its last token was of no use.
void ForestGeneration::take_pass(GenerationStep& result) {
  const SampledTokens sampled = pass_.take();
  const std::vector<std::int32_t> rows = std::move(queued_.front());
  queued_.pop_front();
  const std::vector<std::int32_t>& ends = request_.options.end_tokens;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    GenerationRow& row = schedule_.row(rows[i]);
    --row.queued;
    if (row.finished) continue;
    row.inputs.push_back(sampled.tokens[i]);
    const bool ended = std::find(ends.begin(), ends.end(), sampled.tokens[i]) != ends.end();
    const bool full = row.generated() == schedule_.token_limit(row.request);
    result.rows.push_back(rows[i]);
    result.tokens.push_back(sampled.tokens[i]);
    result.log_probs.push_back(sampled.log_probs[i]);
    result.finished.push_back(ended ? 1 : full ? 2 : 0);
    if (ended || full) schedule_.retire(rows[i]);
  }
  schedule_.drop_finished();
}

GenerationStep ForestGeneration::step(int steps, const CancelFlag* cancel) {
  if (broken_) throw std::logic_error("a generation cannot go on after a failed or cancelled step");
  if (weights_version_ != impl_->weights_version()) {
    throw std::logic_error("the weights changed while a generation was running");
  }
  broken_ = true;
  const ManyOperations many(*impl_->backend);
  const auto ahead = static_cast<std::size_t>(impl_->backend->budget().passes_ahead);
  GenerationStep result;
  for (int i = 0; i < steps;) {
    make_room(result, cancel);
    if (queue_pass(cancel)) {
      ++i;
    } else if (queued_.empty()) {
      break;
    } else {
      take_pass(result);  // rows that end make room for others
    }
    while (queued_.size() > ahead) take_pass(result);
  }
  while (!queued_.empty()) take_pass(result);
  broken_ = false;
  result.done = schedule_.done();
  return result;
}

std::unique_ptr<Generation> Engine::start_generation(GenerationRequest request) {
  impl_->parameters.require_loaded();
  return std::make_unique<ForestGeneration>(impl_, std::move(request));
}

}  // namespace tempora
