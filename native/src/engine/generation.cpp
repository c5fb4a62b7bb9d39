// Engine::start_generation: continuous batching over a paged KV forest. A prompt's keys and values are computed once
// and held once, however many samples continue it. What a row becomes depends on its path, its key and the weights,
// never on the rows beside it: products and attention are row-stable, random numbers are counter-based.
#include <algorithm>
#include <stdexcept>

#include "../forest/random.h"
#include "engine_impl.h"
#include "kv_cache.h"

namespace tempora {
namespace {

// Prompt tokens in one forward pass, at most.
constexpr std::size_t kPrefillRows = 512;
// Logits in memory at once, at most.
constexpr std::int64_t kLogitsBytes = std::int64_t{64} << 20;

// Input rows of one forward pass.
struct CacheRows {
  std::vector<std::int32_t> tokens, positions, slots;
  PathBuilder paths;

  void begin(std::int32_t token, std::int32_t position, std::int32_t slot, std::int32_t group) {
    tokens.push_back(token);
    positions.push_back(position);
    slots.push_back(slot);
    paths.begin_row(position, group);
  }
};

class CacheOperations : public BlockOperations {
 public:
  CacheOperations(const BlockContext& context, const PackedParameters& packed, const KvCache& cache,
                  const CachePlan& plan, const std::vector<std::int32_t>& slots)
      : context_(context), packed_(packed), cache_(cache), plan_(plan), slots_(slots) {}

  void project(const Matrix& x, int parameter, const Matrix& out, bool accumulate) override {
    context_.backend.packed_matmul(x, *packed_.weights[static_cast<std::size_t>(parameter)], out, accumulate);
  }

  void attend(int layer, const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, float*) override {
    const AttentionShape shape = attention_shape(context_.shape, layer);
    context_.backend.write_cache(k, v, slots_.data(), shape, cache_.keys(layer), cache_.values(layer));
    context_.backend.cached_attention(plan_, shape, q, cache_.keys(layer), cache_.values(layer), out);
  }

 private:
  const BlockContext& context_;
  const PackedParameters& packed_;
  const KvCache& cache_;
  const CachePlan& plan_;
  const std::vector<std::int32_t>& slots_;
};

// A node of the prompts' forest, as the cache holds it.
struct CachedNode {
  CachedTokens cache;
  std::int32_t length = 0;      // tokens that the cache holds when the node is resident
  std::int32_t unfinished = 0;  // rows that still need it
  bool resident = false;
};

// One sample. Its first input is the last token of its prompt: the step that computes it predicts the first new token,
// as every later step does, so that a prompt needs no logits of its own.
struct Row {
  std::int32_t request = 0, sample = 0;
  std::int32_t input = 0;      // the token that the next step computes
  std::int32_t generated = 0;  // new tokens so far
  CachedTokens cache;
  bool finished = false;
};

}  // namespace

class ForestGeneration : public Generation {
 public:
  ForestGeneration(std::shared_ptr<Engine::Impl> impl, GenerationRequest request);
  ~ForestGeneration() override = default;
  GenerationStep step(int steps, const CancelFlag* cancel) override;
  void finish_rows(const std::vector<std::int32_t>& rows) override;

 private:
  std::int32_t prompt_length(std::int32_t request) const;
  std::int32_t token_limit(std::int32_t request) const;
  std::int64_t cache_pages() const;
  bool admit_next(std::vector<std::int32_t>& new_nodes);
  std::int64_t pages_wanted(const Row& row) const;
  void evict_all_but(const std::vector<std::int32_t>& path);
  void release(CachedNode& node);
  void retire(Row& row);

  void prefill(const std::vector<std::int32_t>& nodes, const CancelFlag* cancel);
  void decode(GenerationStep& result, const CancelFlag* cancel);
  Matrix forward(CacheRows& rows, const CancelFlag* cancel);
  void sample(const Matrix& x, std::vector<std::int32_t>& tokens, std::vector<float>& log_probs);

  std::shared_ptr<Engine::Impl> impl_;
  GenerationRequest request_;
  std::shared_ptr<PackedParameters> packed_;
  std::uint64_t weights_version_;
  ForestLayout layout_;
  std::vector<std::vector<std::int32_t>> paths_;  // [R] nodes from the root to the leaf
  std::vector<CachedNode> nodes_;
  std::vector<Row> rows_;
  std::vector<std::int32_t> active_;  // ascending
  std::size_t next_ = 0;              // the first row that was not admitted yet
  std::unique_ptr<KvCache> cache_;
  bool broken_ = false;
};

ForestGeneration::ForestGeneration(std::shared_ptr<Engine::Impl> impl, GenerationRequest request)
    : impl_(std::move(impl)),
      request_(std::move(request)),
      packed_(impl_->packed()),
      weights_version_(impl_->weights_version()),
      layout_(layout_of(request_.forest)),
      nodes_(request_.forest.node_parent.size()) {
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
      Row row;
      row.request = request_index;
      row.sample = s;
      row.input = request_.forest.tokens[layout_.node_start[request_.leaves[r] + 1] - 1];
      rows_.push_back(std::move(row));
    }
  }
  if (request_.options.max_rows < 1) throw std::invalid_argument("max_rows must be at least 1");
  cache_ = std::make_unique<KvCache>(*impl_->backend, impl_->shape, impl_->parameters.dtype(),
                                     static_cast<std::int32_t>(cache_pages()));
}

std::int32_t ForestGeneration::prompt_length(std::int32_t request) const {
  const std::int32_t leaf = request_.leaves[request];
  return layout_.node_position[leaf] + layout_.node_length(leaf);
}

std::int32_t ForestGeneration::token_limit(std::int32_t request) const {
  return std::min(request_.options.max_new_tokens, impl_->shape.max_positions - prompt_length(request));
}

// What would hold everything at once, or what the caller allows if that is less.
std::int64_t ForestGeneration::cache_pages() const {
  std::int64_t pages = 0, row_pages = 0;
  for (const CachedNode& node : nodes_) pages += pages_for(node.length);
  for (std::size_t r = 0; r < paths_.size(); ++r) {
    row_pages = std::max(row_pages, pages_for(token_limit(static_cast<std::int32_t>(r))));
  }
  pages += row_pages * std::min<std::int64_t>(request_.options.max_rows, static_cast<std::int64_t>(rows_.size()));
  return std::min(pages, request_.options.max_cache_tokens / kCachePage);
}

// Pages that admitting a row takes: its own, for all it may generate, and those of nodes that are not there yet.
std::int64_t ForestGeneration::pages_wanted(const Row& row) const {
  std::int64_t pages = pages_for(token_limit(row.request));
  for (const std::int32_t node : paths_[row.request]) {
    if (!nodes_[node].resident) pages += pages_for(nodes_[node].length);
  }
  return pages;
}

void ForestGeneration::release(CachedNode& node) {
  cache_->pool().give_back(node.cache.pages);
  node.cache = {};
  node.resident = false;
}

void ForestGeneration::evict_all_but(const std::vector<std::int32_t>& path) {
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    const bool wanted = std::find(path.begin(), path.end(), static_cast<std::int32_t>(node)) != path.end();
    if (nodes_[node].resident && !wanted) release(nodes_[node]);
  }
}

// Admits the next row if there is room; nodes that must be computed for it are added to new_nodes, parents first.
bool ForestGeneration::admit_next(std::vector<std::int32_t>& new_nodes) {
  while (next_ < rows_.size() && rows_[next_].finished) ++next_;
  if (next_ == rows_.size() || active_.size() >= static_cast<std::size_t>(request_.options.max_rows)) return false;
  Row& row = rows_[next_];
  PagePool& pool = cache_->pool();
  if (pages_wanted(row) > pool.available()) {
    if (!active_.empty()) return false;
    // Nodes kept for rows further on make room; they are computed again when their turn comes.
    evict_all_but(paths_[row.request]);
    if (pages_wanted(row) > pool.available()) {
      throw OutOfMemory("one path of the generation needs " + std::to_string(pages_wanted(row) * kCachePage) +
                        " tokens of KV cache, but only " + std::to_string(request_.options.max_cache_tokens) +
                        " are allowed");
    }
  }
  for (const std::int32_t node : paths_[row.request]) {
    CachedNode& cached = nodes_[node];
    if (cached.resident) continue;
    cached.cache = {pool.take(pages_for(cached.length)), cached.length};
    cached.resident = true;
    new_nodes.push_back(node);
  }
  row.cache.pages = pool.take(pages_for(token_limit(row.request)));
  active_.push_back(static_cast<std::int32_t>(next_));
  ++next_;
  return true;
}

void ForestGeneration::retire(Row& row) {
  if (row.finished) return;
  row.finished = true;
  cache_->pool().give_back(row.cache.pages);
  row.cache = {};
  for (const std::int32_t node : paths_[row.request]) {
    CachedNode& cached = nodes_[node];
    if (--cached.unfinished == 0 && cached.resident) release(cached);
  }
}

void ForestGeneration::finish_rows(const std::vector<std::int32_t>& rows) {
  for (const std::int32_t row : rows) retire(rows_.at(static_cast<std::size_t>(row)));
  std::erase_if(active_, [&](std::int32_t row) { return rows_[row].finished; });
}

void ForestGeneration::prefill(const std::vector<std::int32_t>& nodes, const CancelFlag* cancel) {
  CacheRows rows;
  const auto flush = [&] {
    if (rows.tokens.empty()) return;
    const ArenaScope scope(impl_->decoder.scratch());
    forward(rows, cancel);
    rows = {};
  };
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const std::int32_t node = nodes[n];
    const std::vector<std::int32_t> path = layout_.path(node);
    for (std::int32_t i = 0; i < nodes_[node].length; ++i) {
      rows.begin(request_.forest.tokens[layout_.node_start[node] + i], layout_.node_position[node] + i,
                 nodes_[node].cache.slot(i), static_cast<std::int32_t>(n));
      for (const std::int32_t above : path) {
        rows.paths.add_segment(nodes_[above].cache, above == node ? i + 1 : layout_.node_length(above));
      }
      if (rows.tokens.size() == kPrefillRows) flush();
    }
  }
  flush();
}

// The residual stream after the last block, f32 [M,D], in the scratch arena.
Matrix ForestGeneration::forward(CacheRows& rows, const CancelFlag* cancel) {
  Engine::Impl& impl = *impl_;
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const auto count = static_cast<std::int64_t>(rows.tokens.size());
  const BlockContext context{
      backend, impl.shape, impl.parameters, scratch.upload(rows.positions), impl.decoder.frequencies(), count};
  const std::unique_ptr<CachePlan> plan = backend.plan_cache(rows.paths.take());
  CacheOperations operations(context, *packed_, *cache_, *plan, rows.slots);
  BlockActivations saved = allocate_activations(scratch, context);
  saved.x_in = saved.x_mid;
  backend.embed(scratch.upload(rows.tokens), impl.parameters.weight(impl.parameters.embedding()), saved.x_in);
  for (int layer = 0; layer < impl.shape.layers; ++layer) {
    if (cancel != nullptr) cancel->check();
    block_forward(context, layer, operations, scratch, saved, saved.x_in);
  }
  return saved.x_in;
}

void ForestGeneration::sample(const Matrix& x, std::vector<std::int32_t>& tokens, std::vector<float>& log_probs) {
  Engine::Impl& impl = *impl_;
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const Parameters& parameters = impl.parameters;
  const Matrix normed = scratch.matrix(x.rows, x.cols, parameters.dtype());
  backend.rms_norm(x, parameters.data(parameters.final_norm()), impl.shape.norm_eps, normed, scratch.floats(x.rows));
  std::vector<double> uniforms;
  for (const std::int32_t active : active_) {
    const Row& row = rows_[active];
    std::uint64_t key = combine_key(mix64(request_.options.seed), request_.prompt_keys[row.request]);
    key = combine_key(key, static_cast<std::uint64_t>(row.sample));
    uniforms.push_back(unit_interval(combine_key(key, static_cast<std::uint64_t>(row.generated))));
  }
  const std::int64_t vocabulary = impl.shape.vocab_size;
  const std::int64_t at_once = std::max<std::int64_t>(1, kLogitsBytes / (vocabulary * 4));
  for (std::int64_t begin = 0; begin < x.rows; begin += at_once) {
    const ArenaScope scope(scratch);
    const std::int64_t count = std::min(at_once, x.rows - begin);
    const Matrix logits = scratch.matrix(count, vocabulary, DType::f32);
    backend.packed_matmul(normed.row_range(begin, count), *packed_->weights[parameters.head()], logits, false);
    backend.sample(logits, request_.options.sampling, uniforms.data() + begin, tokens.data() + begin,
                   log_probs.data() + begin);
  }
}

void ForestGeneration::decode(GenerationStep& result, const CancelFlag* cancel) {
  const ArenaScope scope(impl_->decoder.scratch());
  CacheRows inputs;
  for (const std::int32_t active : active_) {
    Row& row = rows_[active];
    inputs.begin(row.input, prompt_length(row.request) - 1 + row.generated, row.cache.slot(row.generated), row.request);
    for (const std::int32_t node : paths_[row.request]) {
      const std::int32_t whole = layout_.node_length(node);
      inputs.paths.add_segment(nodes_[node].cache, node == request_.leaves[row.request] ? whole - 1 : whole);
    }
    inputs.paths.add_segment(row.cache, row.generated + 1);
  }
  std::vector<std::int32_t> tokens(active_.size());
  std::vector<float> log_probs(active_.size());
  sample(forward(inputs, cancel), tokens, log_probs);

  const std::vector<std::int32_t>& ends = request_.options.end_tokens;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    Row& row = rows_[active_[i]];
    row.input = tokens[i];
    ++row.generated;
    const bool ended = std::find(ends.begin(), ends.end(), tokens[i]) != ends.end();
    const bool full = row.generated == token_limit(row.request);
    result.rows.push_back(active_[i]);
    result.tokens.push_back(tokens[i]);
    result.log_probs.push_back(log_probs[i]);
    result.finished.push_back(ended ? 1 : full ? 2 : 0);
    if (ended || full) retire(row);
  }
  std::erase_if(active_, [&](std::int32_t row) { return rows_[row].finished; });
}

GenerationStep ForestGeneration::step(int steps, const CancelFlag* cancel) {
  if (broken_) throw std::logic_error("a generation cannot go on after a failed or cancelled step");
  if (weights_version_ != impl_->weights_version()) {
    throw std::logic_error("the weights changed while a generation was running");
  }
  broken_ = true;
  GenerationStep result;
  for (int i = 0; i < steps; ++i) {
    std::vector<std::int32_t> new_nodes;
    while (admit_next(new_nodes)) {
    }
    prefill(new_nodes, cancel);
    if (active_.empty()) break;
    decode(result, cancel);
  }
  broken_ = false;
  result.done = active_.empty() && std::all_of(rows_.begin() + static_cast<std::ptrdiff_t>(next_), rows_.end(),
                                               [](const Row& row) { return row.finished; });
  return result;
}

std::unique_ptr<Generation> Engine::start_generation(GenerationRequest request) {
  impl_->parameters.require_loaded();
  return std::make_unique<ForestGeneration>(impl_, std::move(request));
}

}  // namespace tempora
