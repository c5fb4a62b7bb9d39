#include "block.h"

namespace tempora {

AttentionShape attention_shape(const ModelShape& shape, int layer) {
  return {shape.heads, shape.kv_heads, shape.head_dim, shape.windows[static_cast<std::size_t>(layer)]};
}

BlockActivations allocate_activations(Arena& arena, const BlockContext& context) {
  const ModelShape& shape = context.shape;
  const DType a = context.parameters.dtype();
  const std::int64_t t = context.tokens;
  BlockActivations saved;
  saved.x_mid = arena.matrix(t, shape.hidden_size, DType::f32);
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
  saved.gate = arena.matrix(t, shape.intermediate_size, a);
  saved.up = arena.matrix(t, shape.intermediate_size, a);
  saved.rstd_in = arena.floats(t);
  saved.rstd_post = arena.floats(t);
  saved.lse = arena.floats(t * shape.heads);
  return saved;
}

namespace {

void copy_unless_same(Backend& backend, const Matrix& from, const Matrix& to) {
  if (from.data != to.data) backend.copy(to.data, from.data, from.bytes());
}

// q, k and v of the normalised input: bias, head norm, rope, and where generation puts them.
void project_queries_keys_values(const BlockContext& c, int layer, const BlockParameters& p,
                                 BlockOperations& operations, const BlockActivations& saved, const Matrix& normed) {
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

// x as the activation type: itself in an f32 engine.
Matrix as_activation(const BlockContext& c, Arena& scratch, const Matrix& x) {
  if (x.dtype == c.parameters.dtype()) return x;
  const Matrix cast = scratch.matrix(x.rows, x.cols, c.parameters.dtype());
  c.backend.cast(x, cast);
  return cast;
}

// The backward pass of a projection: its input's gradient, then, when the input is there, its weights'.
class ProjectionBackward {
 public:
  ProjectionBackward(const BlockContext& c, Arena& scratch, const Matrix& d_out, int parameter)
      : c_(c), d_out_(d_out), parameter_(parameter), adapters_(c.backend, scratch, c.adapters, d_out, parameter) {}

  // d_in (+)= d_out · weight
  void to_input(const Matrix& d_in, bool accumulate) const {
    c_.backend.transposed_product(d_out_, c_.parameters.weight(parameter_), d_in, accumulate);
    adapters_.add_input_gradient(d_in);
  }

  // d_weight += d_outᵀ · x
  void to_weights(const Matrix& x) const {
    if (!c_.parameters.frozen()) {
      const GradientSum gradient = c_.parameters.gradient_sum(parameter_);
      c_.backend.gradient_product(d_out_, x, gradient.matrix, gradient.accumulate);
    }
    adapters_.add_weight_gradients(x);
  }

 private:
  const BlockContext& c_;
  Matrix d_out_;
  int parameter_;
  AdapterBackward adapters_;
};

// Both at once.
void project_backward(const BlockContext& c, Arena& scratch, const Matrix& d_out, const Matrix& x, int parameter,
                      const Matrix& d_in, bool accumulate) {
  const ArenaScope scope(scratch);
  const ProjectionBackward backward(c, scratch, d_out, parameter);
  backward.to_input(d_in, accumulate);
  backward.to_weights(x);
}

Matrix normalise_again(const BlockContext& c, Arena& scratch, const Matrix& x, int norm) {
  const Matrix normed = scratch.matrix(x.rows, x.cols, c.parameters.dtype());
  c.backend.rms_norm(x, c.parameters.data(norm), c.shape.norm_eps, normed, scratch.floats(x.rows));
  return normed;
}

void mlp_backward(const BlockContext& c, const BlockParameters& p, Arena& scratch, const BlockActivations& saved,
                  const Matrix& d_x) {
  const ArenaScope scope(scratch);
  const DType a = c.parameters.dtype();
  const Matrix d_out = as_activation(c, scratch, d_x);
  const Matrix d_act = scratch.matrix(c.tokens, c.shape.intermediate_size, a);
  const ProjectionBackward down(c, scratch, d_out, p.down);
  down.to_input(d_act, false);
  const Matrix act = scratch.matrix(c.tokens, c.shape.intermediate_size, a);
  c.backend.swiglu_backward(saved.gate, saved.up, d_act, saved.gate, saved.up, act);
  down.to_weights(act);
  const Matrix normed = normalise_again(c, scratch, saved.x_mid, p.post_norm);
  const Matrix d_normed = scratch.matrix(c.tokens, c.shape.hidden_size, DType::f32);
  project_backward(c, scratch, saved.gate, normed, p.gate, d_normed, false);
  project_backward(c, scratch, saved.up, normed, p.up, d_normed, true);
  c.backend.rms_norm_backward(saved.x_mid, c.parameters.data(p.post_norm), a, saved.rstd_post, d_normed, d_x,
                              c.parameters.gradient_data(p.post_norm));
}

// Back through rope, the head norm and the biases: d_q, d_k, d_v become gradients of the projections' outputs.
void queries_keys_backward(const BlockContext& c, const BlockParameters& p, const BlockActivations& saved,
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

void attention_backward(const BlockContext& c, int layer, const BlockParameters& p, const AttentionPlan& plan,
                        Arena& scratch, const BlockActivations& saved, const Matrix& d_x) {
  const ArenaScope scope(scratch);
  const DType a = c.parameters.dtype();
  const Matrix d_out = as_activation(c, scratch, d_x);
  const Matrix d_attention = scratch.matrix(c.tokens, c.shape.query_size(), a);
  project_backward(c, scratch, d_out, saved.attention, p.output, d_attention, false);
  if (p.output_bias >= 0 && !c.parameters.frozen())
    c.backend.bias_backward(d_out, c.parameters.gradient_data(p.output_bias));

  const Matrix d_q = scratch.matrix(c.tokens, c.shape.query_size(), a);
  const Matrix d_k = scratch.matrix(c.tokens, c.shape.key_size(), a);
  const Matrix d_v = scratch.matrix(c.tokens, c.shape.key_size(), a);
  c.backend.tree_attention_backward(plan, attention_shape(c.shape, layer), saved.q, saved.k, saved.v, saved.attention,
                                    saved.lse, d_attention, d_q, d_k, d_v);
  queries_keys_backward(c, p, saved, d_q, d_k, d_v);

  const Matrix normed = normalise_again(c, scratch, saved.x_in, p.input_norm);
  const Matrix d_normed = scratch.matrix(c.tokens, c.shape.hidden_size, DType::f32);
  project_backward(c, scratch, d_q, normed, p.q, d_normed, false);
  project_backward(c, scratch, d_k, normed, p.k, d_normed, true);
  project_backward(c, scratch, d_v, normed, p.v, d_normed, true);
  c.backend.rms_norm_backward(saved.x_in, c.parameters.data(p.input_norm), a, saved.rstd_in, d_normed, d_x,
                              c.parameters.gradient_data(p.input_norm));
}

// x_mid += attention · outputᵀ, and its norm.
void project_output(const BlockContext& c, const BlockParameters& p, BlockOperations& operations,
                    const BlockActivations& saved, const Matrix& normed) {
  if (p.output_bias < 0) {
    operations.project_norm(saved.attention, p.output, saved.x_mid, p.post_norm, normed, saved.rstd_post);
    return;
  }
  operations.project(saved.attention, p.output, saved.x_mid, true);
  c.backend.add_bias(saved.x_mid, c.parameters.data(p.output_bias), c.parameters.dtype());
  c.backend.rms_norm(saved.x_mid, c.parameters.data(p.post_norm), c.shape.norm_eps, normed, saved.rstd_post);
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

void BlockOperations::project_norm(const Matrix& x, int parameter, const Matrix& sum, int norm, const Matrix& normed,
                                   float* rstd) {
  project(x, parameter, sum, true);
  context_.backend.rms_norm(sum, context_.parameters.data(norm), context_.shape.norm_eps, normed, rstd);
}

void block_forward(const BlockContext& c, int layer, BlockOperations& operations, Arena& scratch,
                   const BlockActivations& saved, const Matrix& x_out) {
  const ArenaScope scope(scratch);
  const BlockParameters& p = c.parameters.block(layer);
  Backend& backend = c.backend;
  const bool carried = saved.carried.data != nullptr;
  const Matrix normed = carried ? saved.carried : scratch.matrix(c.tokens, c.shape.hidden_size, c.parameters.dtype());

  if (!carried || layer == 0) {
    backend.rms_norm(saved.x_in, c.parameters.data(p.input_norm), c.shape.norm_eps, normed, saved.rstd_in);
  }
  project_queries_keys_values(c, layer, p, operations, saved, normed);
  operations.attend(layer, saved.q, saved.k, saved.v, saved.attention, saved.lse);
  copy_unless_same(backend, saved.x_in, saved.x_mid);
  project_output(c, p, operations, saved, normed);

  const Projection gate{p.gate, saved.gate}, up{p.up, saved.up};
  if (x_out.data == nullptr) return operations.project_each(normed, {gate, up});
  const Matrix act = scratch.matrix(c.tokens, c.shape.intermediate_size, c.parameters.dtype());
  operations.project_swiglu(normed, gate, up, act);
  copy_unless_same(backend, saved.x_mid, x_out);
  if (!carried || layer + 1 == c.shape.layers) return operations.project(act, p.down, x_out, true);
  operations.project_norm(act, p.down, x_out, c.parameters.block(layer + 1).input_norm, normed, saved.rstd_in);
}

void block_backward(const BlockContext& c, int layer, const AttentionPlan& plan, Arena& scratch,
                    const BlockActivations& saved, const Matrix& d_x) {
  const BlockParameters& p = c.parameters.block(layer);
  mlp_backward(c, p, scratch, saved, d_x);
  attention_backward(c, layer, p, plan, scratch, saved, d_x);
}

}  // namespace tempora
