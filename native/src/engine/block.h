// The decoder block, forward, written once: training, scoring and generation differ only in where the products and
// the attention come from (BlockOperations).
#pragma once

#include "../backend/backend.h"
#include "adapters.h"
#include "arena.h"
#include "model_shape.h"
#include "parameters.h"

namespace tempora {

// What a block's backward pass needs. x_in and x_mid are the residual stream (f32 [T,D]) before attention and before
// the MLP; the normalised inputs are cheaper to compute again than to keep.
struct BlockActivations {
  Matrix x_in, x_mid;
  Matrix q, k, v;       // A, after rope
  Matrix q_raw, k_raw;  // A, before the head norm (Qwen3 only)
  Matrix attention;     // A [T, H·C]
  Matrix gate, up;      // A [T, F]
  // A [T,D], where it has data: the norm of x_in, as the block before left it; of x_out when the block is done.
  Matrix carried;
  float* rstd_in = nullptr;
  float* rstd_post = nullptr;
  float* rstd_q = nullptr;
  float* rstd_k = nullptr;
  float* lse = nullptr;
};

struct BlockContext {
  Backend& backend;
  const ModelShape& shape;
  const Parameters& parameters;
  const std::int32_t* positions;  // [T] device
  const float* frequencies;       // [C/2] device
  std::int64_t tokens;            // T
  const AdapterPass& adapters;
};

AttentionShape attention_shape(const ModelShape& shape, int layer);

// One of several products of one x.
struct Projection {
  int parameter;
  Matrix out;
};

// How a block multiplies by its weights and attends.
class BlockOperations {
 public:
  explicit BlockOperations(const BlockContext& context) : context_(context) {}
  virtual ~BlockOperations() = default;
  // out [T,N] = x [T,K] · weightᵀ of each, to the bits of each by itself
  virtual void project_each(const Matrix& x, std::initializer_list<Projection> projections) = 0;
  // out f32 = residual + x · weightᵀ; the two may be one matrix
  virtual void project_onto(const Matrix& x, int parameter, const Matrix& residual, const Matrix& out) = 0;

  // Projections and what follows them at once, to the bits of one after another: the products of q, k and v, then
  // what lies between them and attention,
  virtual void project_inputs(const Matrix& x, const BlockParameters& p, const AttentionInputs& inputs);
  // SwiGLU of two products,
  virtual void project_swiglu(const Matrix& x, const Projection& gate, const Projection& up, const Matrix& out);
  // project_onto and the sum's norm.
  virtual void project_norm(const Matrix& x, int parameter, const Matrix& residual, const Matrix& sum, int norm,
                            const Matrix& normed, float* rstd);

  // Where the block's keys and values go before it attends, beside k and v.
  virtual CachePlaces cache_places(int /*layer*/) { return {}; }
  // k is already rotated, keys and values are in their places; lse may be unused.
  virtual void attend(int layer, const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, float* lse) = 0;

 protected:
  const BlockContext& context_;
};

// All but x_in, which the caller owns.
BlockActivations allocate_activations(Arena& arena, const BlockContext& context);

// Fills `saved` from saved.x_in. x_out may be saved.x_in's memory only where saved.x_mid is too (nothing is kept).
// x_out with null data: stop before the down projection (recomputation for the backward pass).
void block_forward(const BlockContext& context, int layer, BlockOperations& operations, Arena& scratch,
                   const BlockActivations& saved, const Matrix& x_out);

// The residual stream's gradient: what blocks add to, and as their products take it.
struct ResidualGradient {
  Matrix sum;      // f32 [T,D]
  Matrix rounded;  // A [T,D]; the same matrix in an f32 engine

  bool is_one() const { return rounded.data == sum.data; }
};

// d_x: the gradient of x_out on entry, of x_in on return; the first block leaves it unrounded. Destroys gate and up.
void block_backward(const BlockContext& context, int layer, const AttentionPlan& plan, Arena& scratch,
                    const BlockActivations& saved, const ResidualGradient& d_x);

}  // namespace tempora
