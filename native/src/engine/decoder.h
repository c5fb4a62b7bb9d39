// The decoder over a forest, forward and backward: embeddings to the residual stream after the last block.
#pragma once

#include <memory>
#include <vector>

#include "arena.h"
#include "block.h"
#include "engine.h"

namespace tempora {

// One forest on the device, and its rows whose result is wanted: behind the last block's attention only they go on.
// Lives in the decoder's arena until the next `prepare`.
struct Batch {
  ForestLayout layout;
  const std::int32_t* tokens = nullptr;     // [T] device
  const std::int32_t* positions = nullptr;  // [T] device
  std::unique_ptr<AttentionPlan> plan;
  AdapterPass adapters;
  const std::int32_t* rows = nullptr;  // [R] device: their tokens
  std::int64_t row_count = 0;          // R
  AdapterPass row_adapters;
};

enum class Use { scoring, training };

enum class Keep {
  nothing,      // scoring: one block's activations at a time
  inputs,       // activation checkpointing: the residual stream before each block
  activations,  // everything the backward pass needs
};

constexpr Keep kept_for(bool checkpointing) { return checkpointing ? Keep::inputs : Keep::activations; }

class Decoder {
 public:
  Decoder(Backend& backend, const ModelShape& shape, Parameters& parameters, Adapters& adapters);

  // Forgets the batch before and everything computed for it. `rows`: the tokens whose result is wanted, distinct ones
  // in training. In training the active adapter's input is dropped out, and its gradients are wanted.
  Batch prepare(const Forest& forest, ForestLayout layout, const std::vector<std::int32_t>& rows, Use use);
  // The residual stream after the last block, f32 [R,D].
  Matrix forward(const Batch& batch, Keep keep, const CancelFlag* cancel);
  // d_rows f32 [R,D]: gradient of what forward returned; destroyed. Adds to the parameters' gradients. The forward pass
  // before it must have kept inputs or activations.
  void backward(const Batch& batch, const Matrix& d_rows, const CancelFlag* cancel);

  // Memory that lives as long as the batch, and memory that a caller takes and gives back within a scope.
  Arena& arena() { return arena_; }
  Arena& scratch() { return scratch_; }
  const float* frequencies() const { return static_cast<const float*>(frequencies_.data()); }
  void release_memory();

 private:
  BlockContext context(const Batch& batch) const;
  BlockContext rows_context(const Batch& batch, int layer) const;
  bool is_last(int layer) const { return layer + 1 == shape_.layers; }
  BlockActivations allocate(Arena& arena, const Batch& batch, int layer, const Matrix& x_in, const Matrix& x_mid);
  void run_block(const Batch& batch, int layer, const BlockActivations& saved, Until until, const Matrix& x_out);
  ResidualGradient rounded(const Matrix& d_x);
  void block_backward(const Batch& batch, int layer, const BlockActivations& saved, const ResidualGradient& d_rows,
                      const ResidualGradient& d_x);
  void start_training_call(AdapterPass& pass);

  Backend& backend_;
  const ModelShape& shape_;
  Parameters& parameters_;
  Adapters& adapters_;
  Arena arena_;
  Arena scratch_;
  Buffer frequencies_;
  Keep kept_ = Keep::nothing;
  std::vector<BlockActivations> blocks_;
  KeptNarrow kept_narrow_;
};

}  // namespace tempora
