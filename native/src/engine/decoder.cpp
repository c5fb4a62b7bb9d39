#include "decoder.h"

#include <algorithm>
#include <stdexcept>

#include "../forest/random.h"

namespace tempora {
namespace {

class TreeOperations : public BlockOperations {
 public:
  TreeOperations(const BlockContext& context, const AttentionPlan& plan, Arena& scratch)
      : BlockOperations(context), plan_(plan), scratch_(scratch) {}

  void project_each(const Matrix& x, std::initializer_list<Projection> projections) override {
    std::vector<WeightProduct> products;
    for (const Projection& one : projections) {
      products.push_back({context_.parameters.weight(one.parameter), one.out});
    }
    context_.backend.products(x, products);
    for (const Projection& one : projections) add_own_adapters(x, one.parameter, one.out);
  }

  void project_onto(const Matrix& x, int parameter, const Matrix& residual, const Matrix& out) override {
    context_.backend.residual_product(x, context_.parameters.weight(parameter), residual, out);
    add_own_adapters(x, parameter, out);
  }

  void attend(int layer, const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, float* lse) override {
    context_.backend.tree_attention(plan_, attention_shape(context_.shape, layer), q, k, v, out, lse);
  }

 private:
  void add_own_adapters(const Matrix& x, int parameter, const Matrix& out) {
    add_adapters(context_.backend, scratch_, context_.adapters, x, parameter, out, Products::batch);
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

Batch Decoder::prepare(const Forest& forest, Use use) {
  arena_.reset();
  scratch_.reset();
  blocks_.clear();
  kept_ = Keep::nothing;
  Batch batch;
  batch.layout = layout_of(forest);
  batch.tokens = arena_.upload(forest.tokens);
  batch.positions = arena_.upload(batch.layout.position);
  batch.plan = backend_.plan_attention(batch.layout);
  const std::vector<const Adapter*> of_tree = adapters_.of_trees(forest.root_adapter, batch.layout.trees);
  for (std::int32_t node = 0; node < batch.layout.nodes; ++node) {
    batch.adapters.runs.add(batch.layout.node_length(node), of_tree[batch.layout.node_tree[node]]);
  }
  if (use == Use::training) start_training_call(batch.adapters);
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
}

BlockContext Decoder::context(const Batch& batch) const {
  return {backend_, shape_, parameters_, batch.positions, frequencies(), batch.layout.tokens, batch.adapters};
}

Matrix Decoder::forward(const Batch& batch, Keep keep, const CancelFlag* cancel) {
  const BlockContext c = context(batch);
  TreeOperations operations(c, *batch.plan, scratch_);
  kept_ = keep;
  Matrix x = arena_.matrix(c.tokens, shape_.hidden_size, DType::f32);
  backend_.embed(batch.tokens, parameters_.weight(parameters_.embedding()), x);
  const std::size_t before = arena_.used();
  for (int layer = 0; layer < shape_.layers; ++layer) {
    check(cancel);
    // All layers keep as much as the first.
    if (layer == 1) arena_.expect(static_cast<std::size_t>(shape_.layers - 1) * (arena_.used() - before));
    if (keep == Keep::activations) {
      BlockActivations saved = allocate_activations(arena_, c);
      saved.x_in = x;
      x = arena_.matrix(c.tokens, shape_.hidden_size, DType::f32);
      block_forward(c, layer, operations, scratch_, saved, x);
      blocks_.push_back(saved);
      continue;
    }
    const ArenaScope scope(scratch_);
    BlockActivations saved = allocate_activations(scratch_, c);
    saved.x_in = x;
    if (keep == Keep::inputs) {
      blocks_.push_back(saved);
      x = arena_.matrix(c.tokens, shape_.hidden_size, DType::f32);
    } else {
      saved.x_mid = x;
    }
    block_forward(c, layer, operations, scratch_, saved, x);
  }
  return x;
}

void Decoder::backward(const Batch& batch, const Matrix& d_x, const CancelFlag* cancel) {
  if (kept_ == Keep::nothing) throw std::logic_error("backward without a forward pass that kept activations");
  const BlockContext c = context(batch);
  TreeOperations operations(c, *batch.plan, scratch_);
  const ArenaScope whole(scratch_);
  ResidualGradient gradient{d_x, d_x};
  if (d_x.dtype != parameters_.dtype()) {
    gradient.rounded = scratch_.matrix(d_x.rows, d_x.cols, parameters_.dtype());
    backend_.cast(d_x, gradient.rounded);
  }
  for (int layer = shape_.layers - 1; layer >= 0; --layer) {
    check(cancel);
    const ArenaScope scope(scratch_);
    BlockActivations saved = blocks_[static_cast<std::size_t>(layer)];
    if (kept_ == Keep::inputs) {
      const Matrix x_in = saved.x_in;
      saved = allocate_activations(scratch_, c);
      saved.x_in = x_in;
      block_forward(c, layer, operations, scratch_, saved, Matrix{});
    }
    block_backward(c, layer, *batch.plan, scratch_, saved, gradient);
  }
  if (!parameters_.frozen()) {
    backend_.embed_backward(batch.tokens, d_x, parameters_.gradient(parameters_.embedding()));
  }
  kept_ = Keep::nothing;
  blocks_.clear();
}

void Decoder::release_memory() {
  blocks_.clear();
  kept_ = Keep::nothing;
  arena_.clear();
  scratch_.clear();
}

}  // namespace tempora
