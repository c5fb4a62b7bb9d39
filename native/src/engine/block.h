// The decoder block, forward, written once: training, scoring and generation differ only in where the products and
// the attention come from (BlockOperations).
#pragma once

#include "../backend/backend.h"
#include "adapters.h"
#include "arena.h"
#include "model_shape.h"
#include "parameters.h"

namespace tempora {

// What the backward pass needs of a block's first part, up to attention, [T] rows. The normalised inputs are cheaper to
// compute again than to keep.
struct AttentionActivations {
  Matrix x_in;          // the residual stream f32 [T,D]
  Matrix q, k, v;       // A, after rope
  Matrix q_raw, k_raw;  // A, before the head norm (Qwen3 only)
  Matrix attention;     // A [T, H·C]
  float* rstd_in = nullptr;
  float* rstd_q = nullptr;
  float* rstd_k = nullptr;
  float* lse = nullptr;
};

// And of the rest, the output projection and the MLP, which take each row by itself: behind the last block's attention
// only those rows go on whose result is wanted.
struct RowActivations {
  Matrix attention;  // the rows' part of the block's
  Matrix x_in;       // and of its residual stream: for the forward pass alone, it may lie where x_mid does
  Matrix x_mid;      // the residual stream f32 before the MLP
  Matrix gate, up;   // A [T, F]
  float* rstd_post = nullptr;
};

struct BlockActivations {
  AttentionActivations whole;
  RowActivations rows;
};

struct BlockContext {
  Backend& backend;
  const ModelShape& shape;
  const Parameters& parameters;
  const std::int32_t* positions;  // [T] device
  const float* frequencies;       // [C/2] device
  std::int64_t tokens;            // T, or the rows that go on
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
AttentionActivations allocate_attention(Arena& arena, const BlockContext& context);
// All but the residual stream and attention, which lie where the caller says.
RowActivations allocate_rows(Arena& arena, const BlockContext& context);

// A block in three parts: what goes into attention, of the norm A [T,D] of x_in; attention, by the operations; and
void inputs_forward(const BlockContext& context, int layer, BlockOperations& operations,
                    const AttentionActivations& saved, const Matrix& normed);
enum class Until {
  down,  // the down projection, which is left out with x_out: recomputation for the backward pass
  end,
  next_norm,  // the next block's norm of x_out, which is left in `normed`, its statistics in rstd_post
};
// what follows it. `normed` A [T,D]: memory for norms on the way. x_out may be rows.x_mid where nothing is
// kept.
void rows_forward(const BlockContext& context, int layer, BlockOperations& operations, Arena& scratch,
                  const RowActivations& rows, const Matrix& normed, Until until, const Matrix& x_out);

// The residual stream's gradient: what blocks add to, and as their products take it.
struct ResidualGradient {
  Matrix sum;      // f32 [T,D]
  Matrix rounded;  // A [T,D]; the same matrix in an f32 engine

  bool is_one() const { return rounded.data == sum.data; }
};

// The way back in three parts, each of which adds to d_x, the residual stream's gradient: of the MLP, which destroys
// gate and up; of the output projection, to d_attention A [T, H·C];
void mlp_backward(const BlockContext& context, int layer, Arena& scratch, const RowActivations& rows,
                  const ResidualGradient& d_x);
void output_backward(const BlockContext& context, int layer, Arena& scratch, const RowActivations& rows,
                     const ResidualGradient& d_x, const Matrix& d_attention);
// and of attention and its inputs, where the first block leaves d_x unrounded.
void attention_backward(const BlockContext& context, int layer, const AttentionPlan& plan, Arena& scratch,
                        const AttentionActivations& saved, const Matrix& d_attention, const ResidualGradient& d_x);

}  // namespace tempora
