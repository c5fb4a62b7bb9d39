#include "block.h"

namespace tempora {

AttentionShape attention_shape(const ModelShape& shape, int layer) {
  return {shape.heads, shape.kv_heads, shape.head_dim, shape.windows[static_cast<std::size_t>(layer)]};
}

AttentionActivations allocate_attention(Arena& arena, const BlockContext& context) {
  const ModelShape& shape = context.shape;
  const DType a = context.parameters.dtype();
  const std::int64_t t = context.tokens;
  AttentionActivations saved;
  saved.q = arena.matrix(t, shape.query_size(), a);
  saved.k = arena.matrix(t, shape.key_size(), a);
  saved.v = arena.matrix(t, shape.key_size(), a);
  if (shape.qk_norm) {
    saved.q_raw = arena.matrix(t, shape.query_size(), a);
    saved.k_raw = arena.matrix(t, shape.key_size(), a);
    saved.rstd_q = arena.floats(t * shape.heads);
    saved.rstd_k = arena.floats(t * shape.kv_heads);
  }
  saved.attention = arena.matrix(t, shape.query_size(), a);
  saved.rstd_in = arena.floats(t);
  saved.lse = arena.floats(t * shape.heads);
  return saved;
}

RowActivations allocate_rows(Arena& arena, const BlockContext& context) {
  const DType a = context.parameters.dtype();
  RowActivations rows;
  rows.gate = arena.matrix(context.tokens, context.shape.intermediate_size, a);
  rows.up = arena.matrix(context.tokens, context.shape.intermediate_size, a);
  rows.rstd_post = arena.floats(context.tokens);
  return rows;
}

namespace {

// What came back to a projection's output.
struct ProjectionGradient {
  int parameter;
  Matrix d_out;
};

// The backward pass of projections of one input: the input's gradient, then, when the input is there, their weights'.
class ProjectionsBackward {
 public:
  ProjectionsBackward(const BlockContext& c, Arena& scratch, std::initializer_list<ProjectionGradient> projections)
      : c_(c), projections_(projections) {
    for (const ProjectionGradient& one : projections_) {
      adapters_.emplace_back(c.backend, scratch, c.adapters, one.d_out, one.parameter);
    }
  }

  // d_in = the sum of d_out · weight; of one projection d_in may be of the activations' type.
  void to_input(const Matrix& d_in) const {
    std::vector<TransposedProduct> products;
    for (std::size_t i = 0; i < projections_.size(); ++i) {
      const ProjectionGradient& one = projections_[i];
      products.push_back({one.d_out, c_.parameters.weight(one.parameter), adapters_[i].input_term()});
    }
    c_.backend.transposed_products(products, d_in);
    for (std::size_t i = 0; i < products.size(); ++i) {
      if (products[i].narrow.weight == nullptr) adapters_[i].add_input_gradient(d_in);
    }
  }

  // d_weight += d_outᵀ · x
  void to_weights(const Matrix& x) const {
    if (!c_.parameters.frozen()) {
      std::vector<GradientProduct> products;
      for (const ProjectionGradient& one : projections_) {
        const GradientSum gradient = c_.parameters.gradient_sum(one.parameter);
        products.push_back({one.d_out, gradient.matrix, gradient.accumulate, gradient.squares});
      }
      c_.backend.gradient_products(x, products);
    }
    for (const AdapterBackward& adapter : adapters_) adapter.add_weight_gradients(x);
  }

 private:
  const BlockContext& c_;
  std::vector<ProjectionGradient> projections_;
  std::vector<AdapterBackward> adapters_;
};

// Both at once.
void project_backward(const BlockContext& c, Arena& scratch, std::initializer_list<ProjectionGradient> projections,
                      const Matrix& x, const Matrix& d_in) {
  const ArenaScope scope(scratch);
  const ProjectionsBackward backward(c, scratch, projections);
  backward.to_input(d_in);
  backward.to_weights(x);
}

// A norm of the residual stream.
struct BlockNorm {
  int parameter;
  Matrix x;
  float* rstd;
};

// Through projections of a norm, and through the norm, to the residual stream's gradient. The norm's result, which the
// projections' weights want, is computed again by the way.
void project_norm_backward(const BlockContext& c, Arena& scratch, std::initializer_list<ProjectionGradient> projections,
                           const BlockNorm& norm, const ResidualGradient& d_x, bool last) {
  const Matrix normed = scratch.matrix(c.tokens, c.shape.hidden_size, c.parameters.dtype());
  const Matrix d_normed = scratch.matrix(c.tokens, c.shape.hidden_size, DType::f32);
  const ArenaScope scope(scratch);
  const ProjectionsBackward backward(c, scratch, projections);
  backward.to_input(d_normed);
  c.backend.recomputed_norm_backward({.x = norm.x,
                                      .weight = c.parameters.data(norm.parameter),
                                      .eps = c.shape.norm_eps,
                                      .rstd = norm.rstd,
                                      .d_y = d_normed,
                                      .y = normed,
                                      .d_x = d_x.sum,
                                      .d_weight = c.parameters.gradient_data(norm.parameter),
                                      .rounded = last || d_x.is_one() ? Matrix{} : d_x.rounded});
  backward.to_weights(normed);
}

// Back through rope, the head norm and the biases: d_q, d_k, d_v become gradients of the projections' outputs.
void queries_keys_backward(const BlockContext& c, const BlockParameters& p, const AttentionActivations& saved,
                           const Matrix& d_q, const Matrix& d_k, const Matrix& d_v) {
  Backend& backend = c.backend;
  const int head_dim = c.shape.head_dim;
  backend.rope(d_q, head_dim, c.positions, c.frequencies, true);
  backend.rope(d_k, head_dim, c.positions, c.frequencies, true);
  if (c.shape.qk_norm) {
    backend.head_norm_backward(saved.q_raw, head_dim, c.parameters.data(p.q_norm), saved.rstd_q, d_q, d_q,
                               c.parameters.gradient_data(p.q_norm));
    backend.head_norm_backward(saved.k_raw, head_dim, c.parameters.data(p.k_norm), saved.rstd_k, d_k, d_k,
                               c.parameters.gradient_data(p.k_norm));
  }
  if (p.q_bias >= 0 && !c.parameters.frozen()) {
    backend.bias_backward(d_q, c.parameters.gradient_data(p.q_bias));
    backend.bias_backward(d_k, c.parameters.gradient_data(p.k_bias));
    backend.bias_backward(d_v, c.parameters.gradient_data(p.v_bias));
  }
}

// x_mid = x_in + attention · outputᵀ, and its norm.
void project_output(const BlockContext& c, const BlockParameters& p, BlockOperations& operations,
                    const RowActivations& rows, const Matrix& normed) {
  if (p.output_bias < 0) {
    operations.project_norm(rows.attention, p.output, rows.x_in, rows.x_mid, p.post_norm, normed, rows.rstd_post);
    return;
  }
  operations.project_onto(rows.attention, p.output, rows.x_in, rows.x_mid);
  c.backend.add_bias(rows.x_mid, c.parameters.data(p.output_bias), c.parameters.dtype());
  c.backend.rms_norm(rows.x_mid, c.parameters.data(p.post_norm), c.shape.norm_eps, normed, rows.rstd_post);
}

}  // namespace

void BlockOperations::project_inputs(const Matrix& x, const BlockParameters& p, const AttentionInputs& inputs) {
  project_each(x, {{p.q, inputs.q.product()}, {p.k, inputs.k.product()}, {p.v, inputs.v.product()}});
  context_.backend.attention_inputs(inputs);
}

void BlockOperations::project_swiglu(const Matrix& x, const Projection& gate, const Projection& up, const Matrix& out) {
  project_each(x, {gate, up});
  context_.backend.swiglu(gate.out, up.out, out);
}

void BlockOperations::project_norm(const Matrix& x, int parameter, const Matrix& residual, const Matrix& sum, int norm,
                                   const Matrix& normed, float* rstd) {
  project_onto(x, parameter, residual, sum);
  context_.backend.rms_norm(sum, context_.parameters.data(norm), context_.shape.norm_eps, normed, rstd);
}

// q, k and v of the normalised input: bias, head norm, rope, and where generation puts them.
void inputs_forward(const BlockContext& c, int layer, BlockOperations& operations, const AttentionActivations& saved,
                    const Matrix& normed) {
  const BlockParameters& p = c.parameters.block(layer);
  AttentionInputs inputs;
  inputs.q.out = saved.q;
  inputs.k.out = saved.k;
  inputs.v.out = saved.v;
  if (p.q_bias >= 0) {
    inputs.q.bias = c.parameters.data(p.q_bias);
    inputs.k.bias = c.parameters.data(p.k_bias);
    inputs.v.bias = c.parameters.data(p.v_bias);
  }
  if (c.shape.qk_norm) {
    inputs.q.raw = saved.q_raw;
    inputs.k.raw = saved.k_raw;
    inputs.q.norm = c.parameters.data(p.q_norm);
    inputs.k.norm = c.parameters.data(p.k_norm);
    inputs.q.rstd = saved.rstd_q;
    inputs.k.rstd = saved.rstd_k;
  }
  inputs.shape = attention_shape(c.shape, layer);
  inputs.norm_eps = c.shape.norm_eps;
  inputs.positions = c.positions;
  inputs.frequencies = c.frequencies;
  inputs.cache = operations.cache_places(layer);
  operations.project_inputs(normed, p, inputs);
}

void rows_forward(const BlockContext& c, int layer, BlockOperations& operations, Arena& scratch,
                  const RowActivations& rows, const Matrix& normed, Until until, const Matrix& x_out) {
  const ArenaScope scope(scratch);
  const BlockParameters& p = c.parameters.block(layer);
  project_output(c, p, operations, rows, normed);
  const Projection gate{p.gate, rows.gate}, up{p.up, rows.up};
  if (until == Until::down) return operations.project_each(normed, {gate, up});
  const Matrix act = scratch.matrix(c.tokens, c.shape.intermediate_size, c.parameters.dtype());
  operations.project_swiglu(normed, gate, up, act);
  if (until == Until::end) return operations.project_onto(act, p.down, rows.x_mid, x_out);
  operations.project_norm(act, p.down, rows.x_mid, x_out, c.parameters.block(layer + 1).input_norm, normed,
                          rows.rstd_post);
}

void mlp_backward(const BlockContext& c, int layer, Arena& scratch, const RowActivations& rows,
                  const ResidualGradient& d_x) {
  const BlockParameters& p = c.parameters.block(layer);
  const ArenaScope scope(scratch);
  const DType a = c.parameters.dtype();
  const Matrix d_act = scratch.matrix(c.tokens, c.shape.intermediate_size, a);
  const ProjectionsBackward down(c, scratch, {{p.down, d_x.rounded}});
  down.to_input(d_act);
  const Matrix act = scratch.matrix(c.tokens, c.shape.intermediate_size, a);
  c.backend.swiglu_backward(rows.gate, rows.up, d_act, rows.gate, rows.up, act);
  down.to_weights(act);
  project_norm_backward(c, scratch, {{p.gate, rows.gate}, {p.up, rows.up}}, {p.post_norm, rows.x_mid, rows.rstd_post},
                        d_x, false);
}

void output_backward(const BlockContext& c, int layer, Arena& scratch, const RowActivations& rows,
                     const ResidualGradient& d_x, const Matrix& d_attention) {
  const BlockParameters& p = c.parameters.block(layer);
  project_backward(c, scratch, {{p.output, d_x.rounded}}, rows.attention, d_attention);
  if (p.output_bias >= 0 && !c.parameters.frozen())
    c.backend.bias_backward(d_x.rounded, c.parameters.gradient_data(p.output_bias));
}

void attention_backward(const BlockContext& c, int layer, const AttentionPlan& plan, Arena& scratch,
                        const AttentionActivations& saved, const Matrix& d_attention, const ResidualGradient& d_x) {
  const ArenaScope scope(scratch);
  const BlockParameters& p = c.parameters.block(layer);
  const DType a = c.parameters.dtype();
  const Matrix d_q = scratch.matrix(c.tokens, c.shape.query_size(), a);
  const Matrix d_k = scratch.matrix(c.tokens, c.shape.key_size(), a);
  const Matrix d_v = scratch.matrix(c.tokens, c.shape.key_size(), a);
  c.backend.tree_attention_backward(plan, attention_shape(c.shape, layer), saved.q, saved.k, saved.v, saved.attention,
                                    saved.lse, d_attention, d_q, d_k, d_v);
  queries_keys_backward(c, p, saved, d_q, d_k, d_v);

  project_norm_backward(c, scratch, {{p.q, d_q}, {p.k, d_k}, {p.v, d_v}}, {p.input_norm, saved.x_in, saved.rstd_in},
                        d_x, layer == 0);
}

}  // namespace tempora
