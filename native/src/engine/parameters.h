// The parameters of one model on one device: weights always, gradients and moments once training asks for them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "model_shape.h"

namespace tempora {

struct Parameter {
  bool decays = false;  // matrices do, norms and biases do not
  bool loaded = false;
  std::unique_ptr<Weight> weight;
  Buffer gradient;  // f32
  Moments moments;

  std::int64_t size() const { return weight->size(); }
};

// Indices of one block's parameters; -1 where the family has none.
struct BlockParameters {
  int input_norm = -1;
  int q = -1, k = -1, v = -1;
  int q_bias = -1, k_bias = -1, v_bias = -1;
  int q_norm = -1, k_norm = -1;
  int output = -1, output_bias = -1;
  int post_norm = -1;
  int gate = -1, up = -1, down = -1;
};

// The order is that of parameterShapes in packages/engine/src/model.ts.
class Parameters {
 public:
  Parameters(Backend& backend, const ModelShape& shape, DType dtype);

  int count() const { return static_cast<int>(list_.size()); }
  Parameter& at(int index) { return list_.at(static_cast<std::size_t>(index)); }
  const Parameter& at(int index) const { return list_.at(static_cast<std::size_t>(index)); }

  Weight& weight(int index) const { return *at(index).weight; }
  Matrix gradient(int index) const;
  const void* data(int index) const { return at(index).weight->storage.data(); }
  float* gradient_data(int index) const { return static_cast<float*>(at(index).gradient.data()); }

  const BlockParameters& block(int layer) const { return blocks_[static_cast<std::size_t>(layer)]; }
  int embedding() const { return embedding_; }
  int final_norm() const { return final_norm_; }
  int head() const { return head_; }  // the embedding when tied
  DType dtype() const { return dtype_; }

  void require_loaded() const;
  void ensure_gradients();  // zero when they are new
  void zero_gradients();
  void ensure_moments();
  void drop_training_state();

 private:
  int add(std::int64_t rows, std::int64_t cols, bool decays);

  Backend& backend_;
  DType dtype_;
  std::vector<Parameter> list_;
  std::vector<BlockParameters> blocks_;
  int embedding_ = -1, final_norm_ = -1, head_ = -1;
};

}  // namespace tempora
