#include "decoder.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "../forest/random.h"

namespace tempora {
namespace {

class TreeOperations : public BlockOperations {
 public:
  TreeOperations(const BlockContext& context, const AttentionPlan& plan, Arena& scratch)
      : BlockOperations(context), plan_(plan), scratch_(scratch) {}

  void project_each(const Matrix& x, std::initializer_list<Projection> projections) override {
    const ArenaScope scope(scratch_);
    std::vector<WeightProduct> products;
    for (const Projection& one : projections) products.push_back(product_of(x, one));
    context_.backend.products(x, products);
    std::size_t i = 0;
    for (const Projection& one : projections) add_own_adapters(x, one, products[i++]);
  }

  void project_onto(const Matrix& x, int parameter, const Matrix& residual, const Matrix& out) override {
    const ArenaScope scope(scratch_);
    const WeightProduct product = product_of(x, {parameter, out});
    context_.backend.residual_product(x, product, residual);
    add_own_adapters(x, {parameter, out}, product);
  }

  void attend(int layer, const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, float* lse) override {
    context_.backend.tree_attention(plan_, attention_shape(context_.shape, layer), q, k, v, out, lse);
  }

 private:
  WeightProduct product_of(const Matrix& x, const Projection& one) {
    return {context_.parameters.weight(one.parameter), one.out,
            narrow_term(context_.backend, scratch_, context_.adapters, x, one.parameter)};
  }

  // Those that were not in the product.
  void add_own_adapters(const Matrix& x, const Projection& one, const WeightProduct& product) {
    if (product.narrow.weight != nullptr) return;
    add_adapters(context_.backend, scratch_, context_.adapters, x, one.parameter, one.out, Products::batch);
  }

  const AttentionPlan& plan_;
  Arena& scratch_;
};

void check(const CancelFlag* cancel) {
  if (cancel != nullptr) cancel->check();
}

}  // namespace

Decoder::Decoder(Backend& backend, const ModelShape& shape, Parameters& parameters, Adapters& adapters)
    : backend_(backend),
      shape_(shape),
      parameters_(parameters),
      adapters_(adapters),
      arena_(backend),
      scratch_(backend) {
  const std::size_t bytes = shape.rotary_frequencies.size() * sizeof(float);
  frequencies_ = backend.allocate(bytes, MemoryUse::weights);
  backend.copy_in(frequencies_.data(), shape.rotary_frequencies.data(), bytes);
}

Batch Decoder::prepare(const Forest& forest, ForestLayout layout, const std::vector<std::int32_t>& rows, Use use) {
  arena_.reset();
  scratch_.reset();
  blocks_.clear();
  kept_ = Keep::nothing;
  kept_narrow_ = {};
  Batch batch;
  batch.layout = std::move(layout);
  batch.tokens = arena_.upload(forest.tokens);
  batch.positions = arena_.upload(batch.layout.position);
  batch.plan = backend_.plan_attention(batch.layout);
  const std::vector<const Adapter*> of_tree = adapters_.of_trees(forest.root_adapter, batch.layout.trees);
  for (std::int32_t node = 0; node < batch.layout.nodes; ++node) {
    batch.adapters.runs.add(batch.layout.node_length(node), of_tree[batch.layout.node_tree[node]]);
  }
  if (use == Use::training) start_training_call(batch.adapters);
  batch.rows = arena_.upload(rows);
  batch.row_count = static_cast<std::int64_t>(rows.size());
  batch.row_adapters = batch.adapters;
  batch.row_adapters.runs = {};
  for (const std::int32_t row : rows)
    batch.row_adapters.runs.add(1, of_tree[batch.layout.node_tree[batch.layout.node_of(row)]]);
  return batch;
}

void Decoder::start_training_call(AdapterPass& pass) {
  ParameterSet& trained = adapters_.trained();
  trained.ensure_gradients();
  pass.trained = adapters_.find(adapters_.active());
  if (pass.trained == nullptr) return;
  // Counted from the last step, so that a training that was resumed there drops out the same elements.
  pass.dropout_key = combine_key(mix64(pass.trained->spec().seed), static_cast<std::uint64_t>(trained.optimizer_steps));
  pass.dropout_key = combine_key(pass.dropout_key, static_cast<std::uint64_t>(trained.calls++));
  pass.kept = &kept_narrow_;
}

BlockContext Decoder::context(const Batch& batch) const {
  return {backend_, shape_, parameters_, batch.positions, frequencies(), batch.layout.tokens, batch.adapters};
}

// The rows behind a block's attention.
BlockContext Decoder::rows_context(const Batch& batch, int layer) const {
  if (!is_last(layer)) return context(batch);
  return {backend_, shape_, parameters_, nullptr, frequencies(), batch.row_count, batch.row_adapters};
}

BlockActivations Decoder::allocate(Arena& arena, const Batch& batch, int layer, const Matrix& x_in,
                                   const Matrix& x_mid) {
  const BlockContext rows = rows_context(batch, layer);
  BlockActivations saved{allocate_attention(arena, context(batch)), allocate_rows(arena, rows)};
  saved.whole.x_in = x_in;
  saved.rows.x_mid = x_mid;
  saved.rows.x_in = x_in;
  saved.rows.attention = saved.whole.attention;
  if (is_last(layer)) {
    saved.rows.x_in = x_mid;
    saved.rows.attention = arena.matrix(rows.tokens, shape_.query_size(), parameters_.dtype());
  }
  return saved;
}

void Decoder::run_block(const Batch& batch, int layer, const BlockActivations& saved, Until until,
                        const Matrix& x_out) {
  const BlockContext c = context(batch), rows = rows_context(batch, layer);
  TreeOperations operations(c, *batch.plan, scratch_), row_operations(rows, *batch.plan, scratch_);
  const ArenaScope scope(scratch_);
  const AttentionActivations& whole = saved.whole;
  Matrix normed = scratch_.matrix(c.tokens, shape_.hidden_size, parameters_.dtype());
  backend_.rms_norm(whole.x_in, parameters_.data(parameters_.block(layer).input_norm), shape_.norm_eps, normed,
                    whole.rstd_in);
  inputs_forward(c, layer, operations, whole, normed);
  operations.attend(layer, whole.q, whole.k, whole.v, whole.attention, whole.lse);
  if (is_last(layer)) {
    backend_.gather_rows(whole.x_in, batch.rows, saved.rows.x_in);
    backend_.gather_rows(whole.attention, batch.rows, saved.rows.attention);
    normed = scratch_.matrix(rows.tokens, shape_.hidden_size, parameters_.dtype());
  }
  rows_forward(rows, layer, row_operations, scratch_, saved.rows, normed, until, x_out);
}

Matrix Decoder::forward(const Batch& batch, Keep keep, const CancelFlag* cancel) {
  kept_ = keep;
  kept_narrow_.arena = keep == Keep::activations ? &arena_ : nullptr;
  Matrix x = arena_.matrix(batch.layout.tokens, shape_.hidden_size, DType::f32);
  backend_.embed(batch.tokens, parameters_.weight(parameters_.embedding()), x);
  const std::size_t before = arena_.used();
  for (int layer = 0; layer < shape_.layers; ++layer) {
    check(cancel);
    // All but the last keep as much as the first, and that about as much.
    if (layer == 1) arena_.expect(static_cast<std::size_t>(shape_.layers - 1) * (arena_.used() - before));
    const std::int64_t rows = rows_context(batch, layer).tokens;
    const bool in_place = keep == Keep::nothing && !is_last(layer);
    const auto stream = [&](Arena& arena) { return in_place ? x : arena.matrix(rows, shape_.hidden_size, DType::f32); };
    const ArenaScope scope(scratch_);
    Arena& kept = keep == Keep::activations ? arena_ : scratch_;
    const BlockActivations saved = allocate(kept, batch, layer, x, stream(kept));
    if (keep != Keep::nothing) blocks_.push_back(saved);
    x = stream(arena_);
    run_block(batch, layer, saved, Until::end, x);
  }
  return x;
}

// A gradient f32, and as products take it.
ResidualGradient Decoder::rounded(const Matrix& d_x) {
  if (parameters_.dtype() == DType::f32) return {d_x, d_x};
  return {d_x, scratch_.matrix(d_x.rows, d_x.cols, parameters_.dtype())};
}

// d_rows: of the rows behind attention, which are those of d_x but in the last block.
void Decoder::block_backward(const Batch& batch, int layer, const BlockActivations& saved,
                             const ResidualGradient& d_rows, const ResidualGradient& d_x) {
  const BlockContext c = context(batch), rows = rows_context(batch, layer);
  mlp_backward(rows, layer, scratch_, saved.rows, d_rows);
  const ArenaScope scope(scratch_);
  const Matrix d_attention = scratch_.matrix(c.tokens, shape_.query_size(), parameters_.dtype());
  if (is_last(layer)) {
    const ArenaScope of_rows(scratch_);
    const Matrix d_rows_attention = scratch_.matrix(rows.tokens, shape_.query_size(), parameters_.dtype());
    output_backward(rows, layer, scratch_, saved.rows, d_rows, d_rows_attention);
    backend_.scatter_rows(d_rows_attention, batch.rows, d_attention);
    backend_.scatter_rows(d_rows.sum, batch.rows, d_x.sum);
  } else {
    output_backward(rows, layer, scratch_, saved.rows, d_rows, d_attention);
  }
  attention_backward(c, layer, *batch.plan, scratch_, saved.whole, d_attention, d_x);
}

void Decoder::backward(const Batch& batch, const Matrix& d_rows, const CancelFlag* cancel) {
  if (kept_ == Keep::nothing) throw std::logic_error("backward without a forward pass that kept activations");
  const ArenaScope whole(scratch_);
  const ResidualGradient of_rows = rounded(d_rows);
  if (!of_rows.is_one()) backend_.cast(d_rows, of_rows.rounded);
  const Matrix d_x = scratch_.matrix(batch.layout.tokens, shape_.hidden_size, DType::f32);
  const ResidualGradient gradient = rounded(d_x);
  for (int layer = shape_.layers - 1; layer >= 0; --layer) {
    check(cancel);
    const ArenaScope scope(scratch_);
    BlockActivations saved = blocks_[static_cast<std::size_t>(layer)];
    if (kept_ == Keep::inputs) {
      const Matrix x_mid = scratch_.matrix(saved.rows.x_mid.rows, shape_.hidden_size, DType::f32);
      saved = allocate(scratch_, batch, layer, saved.whole.x_in, x_mid);
      run_block(batch, layer, saved, Until::down, Matrix{});
    }
    block_backward(batch, layer, saved, is_last(layer) ? of_rows : gradient, gradient);
  }
  if (!parameters_.frozen()) {
    backend_.embed_backward(batch.tokens, d_x, parameters_.gradient(parameters_.embedding()));
  }
  kept_ = Keep::nothing;
  blocks_.clear();
}

void Decoder::release_memory() {
  blocks_.clear();
  kept_narrow_ = {};
  kept_ = Keep::nothing;
  arena_.clear();
  scratch_.clear();
}

}  // namespace tempora
