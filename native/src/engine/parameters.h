// Weights that are trained together, and those of one model: weights always, gradients and moments once training asks.
#pragma once

#include <map>
#include <memory>
#include <optional>
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
  // Its content counts as zero: nobody has written it since gradients were zeroed.
  mutable bool gradient_unwritten = false;
  // The sum of the gradient's squares, where whoever wrote it last knew.
  mutable std::optional<double> gradient_squares;
  Moments moments;

  std::int64_t size() const { return weight->size(); }
};

// A gradient's place, and whether to add to what is there.
struct GradientSum {
  Matrix matrix;
  bool accumulate = true;
  std::optional<double>* squares = nullptr;  // for the sum of its squares, by who knows it
};

class ParameterSet {
 public:
  ParameterSet(Backend& backend, MomentsFormat moments) : backend_(backend), moments_(moments) {}

  // Returns the parameter's index. A vector has one row.
  int add(WeightFormat format, std::int64_t rows, std::int64_t cols, bool decays);

  int count() const { return static_cast<int>(list_.size()); }
  Parameter& at(int index) { return list_.at(static_cast<std::size_t>(index)); }
  const Parameter& at(int index) const { return list_.at(static_cast<std::size_t>(index)); }
  Weight& weight(int index) const { return *at(index).weight; }
  const void* data(int index) const { return at(index).weight->storage.data(); }

  // As backend.sum_of_squares over all gradients, of which it reads those whose sum is not known.
  double gradient_squares() const;
  // Null where the set is frozen: then nobody computes gradients. Zero if nobody has added to it.
  Matrix gradient(int index) const;
  // For who writes it whole: the first one need not add to zeros.
  GradientSum gradient_sum(int index) const;
  // The same for who only reads.
  Matrix read_gradient(int index) const;
  float* gradient_data(int index) const { return gradient(index).f32(); }
  MomentsFormat moments_format() const { return moments_; }
  bool frozen() const { return frozen_; }
  void freeze(bool frozen) { frozen_ = frozen; }

  void require_loaded() const;
  void ensure_gradients();  // none where the set is frozen
  void zero_gradients();
  void ensure_moments();
  void drop_training_state();

  std::int64_t optimizer_steps = 0;
  // Training calls since the last step: with the steps, what random numbers of training are counted by.
  std::int64_t calls = 0;

 private:
  Backend& backend_;
  MomentsFormat moments_;
  std::vector<Parameter> list_;
  bool frozen_ = false;
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

// Formats of the matrices of the blocks that are not dtype's: of all of them, or of some by their parameters' indices.
struct FrozenFormats {
  std::optional<WeightFormat> all;
  std::map<int, WeightFormat> some;

  bool any() const { return all.has_value() || !some.empty(); }
};

// The order is that of parameterShapes in packages/engine/src/model.ts.
class Parameters : public ParameterSet {
 public:
  Parameters(Backend& backend, const ModelShape& shape, DType dtype, FrozenFormats quantised, MomentsFormat moments);

  const BlockParameters& block(int layer) const { return blocks_[static_cast<std::size_t>(layer)]; }
  // Whether a parameter is one of the matrices of the blocks, which adapters may adapt.
  bool adaptable(int index) const;
  int embedding() const { return embedding_; }
  int final_norm() const { return final_norm_; }
  int head() const { return head_; }  // the embedding when tied
  DType dtype() const { return dtype_; }
  bool quantised() const { return quantised_.any(); }

 private:
  int add_plain(std::int64_t rows, std::int64_t cols, bool decays);
  int add_block_matrix(std::int64_t rows, std::int64_t cols);

  DType dtype_;
  FrozenFormats quantised_;
  std::vector<BlockParameters> blocks_;
  int embedding_ = -1, final_norm_ = -1, head_ = -1;
};

}  // namespace tempora
