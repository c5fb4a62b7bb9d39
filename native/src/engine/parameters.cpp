#include "parameters.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace tempora {

int ParameterSet::add(WeightFormat format, std::int64_t rows, std::int64_t cols, bool decays) {
  Parameter parameter;
  parameter.decays = decays;
  parameter.weight = backend_.make_weight(format, rows, cols);
  list_.push_back(std::move(parameter));
  return count() - 1;
}

GradientSum ParameterSet::gradient_sum(int index) const {
  const Parameter& p = at(index);
  if (frozen_) return {{nullptr, DType::f32, p.weight->rows, p.weight->cols}};
  p.gradient_squares.reset();
  return {{p.gradient.data(), DType::f32, p.weight->rows, p.weight->cols},
          !std::exchange(p.gradient_unwritten, false),
          &p.gradient_squares};
}

double ParameterSet::gradient_squares() const {
  double known = 0;
  std::vector<Matrix> others;
  for (int i = 0; i < count(); ++i) {
    const std::optional<double> squares = at(i).gradient_squares;
    known += squares.value_or(0);
    if (!squares) others.push_back(gradient(i));
  }
  return known + backend_.sum_of_squares(others);
}

Matrix ParameterSet::read_gradient(int index) const {
  const std::optional<double> squares = at(index).gradient_squares;
  const Matrix matrix = gradient(index);
  at(index).gradient_squares = squares;
  return matrix;
}

Matrix ParameterSet::gradient(int index) const {
  const GradientSum sum = gradient_sum(index);
  if (!sum.accumulate) backend_.zero(sum.matrix.data, sum.matrix.bytes());
  return sum.matrix;
}

void ParameterSet::require_loaded() const {
  for (int i = 0; i < count(); ++i) {
    if (!at(i).loaded) throw std::logic_error("parameter " + std::to_string(i) + " was never set");
  }
}

void ParameterSet::ensure_gradients() {
  if (frozen_) return;
  for (Parameter& p : list_) {
    if (p.gradient) continue;
    p.gradient = backend_.allocate(static_cast<std::size_t>(p.size()) * 4, MemoryUse::gradients);
    p.gradient_unwritten = true;
  }
}

void ParameterSet::zero_gradients() {
  calls = 0;
  for (Parameter& p : list_) {
    p.gradient_unwritten = static_cast<bool>(p.gradient);
    p.gradient_squares.reset();
  }
}

void ParameterSet::ensure_moments() {
  for (Parameter& p : list_) {
    if (!p.moments) p.moments = backend_.make_moments(moments_, p.size());
  }
}

void ParameterSet::drop_training_state() {
  optimizer_steps = 0;
  calls = 0;
  for (Parameter& p : list_) {
    p.gradient = Buffer();
    p.gradient_unwritten = false;
    p.gradient_squares.reset();
    p.moments = {};
  }
}

Parameters::Parameters(Backend& backend, const ModelShape& shape, DType dtype, FrozenFormats quantised,
                       MomentsFormat moments)
    : ParameterSet(backend, moments), dtype_(dtype), quantised_(std::move(quantised)) {
  const std::int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
  const std::int64_t queries = shape.query_size(), keys = shape.key_size();
  embedding_ = add_plain(shape.vocab_size, hidden, true);
  for (int layer = 0; layer < shape.layers; ++layer) {
    BlockParameters block;
    block.input_norm = add_plain(1, hidden, false);
    block.q = add_block_matrix(queries, hidden);
    block.k = add_block_matrix(keys, hidden);
    block.v = add_block_matrix(keys, hidden);
    if (shape.qkv_bias) {
      block.q_bias = add_plain(1, queries, false);
      block.k_bias = add_plain(1, keys, false);
      block.v_bias = add_plain(1, keys, false);
    }
    if (shape.qk_norm) {
      block.q_norm = add_plain(1, shape.head_dim, false);
      block.k_norm = add_plain(1, shape.head_dim, false);
    }
    block.output = add_block_matrix(hidden, queries);
    if (shape.output_bias) block.output_bias = add_plain(1, hidden, false);
    block.post_norm = add_plain(1, hidden, false);
    block.gate = add_block_matrix(inner, hidden);
    block.up = add_block_matrix(inner, hidden);
    block.down = add_block_matrix(hidden, inner);
    blocks_.push_back(block);
  }
  final_norm_ = add_plain(1, hidden, false);
  head_ = shape.tied_head ? embedding_ : add_plain(shape.vocab_size, hidden, true);
  for (const auto& [index, format] : quantised_.some) {
    if (index < 0 || index >= count() || !adaptable(index)) {
      throw std::invalid_argument("parameter " + std::to_string(index) + " is no matrix of a block");
    }
  }
}

int Parameters::add_plain(std::int64_t rows, std::int64_t cols, bool decays) {
  return add(format_of(dtype_), rows, cols, decays);
}

int Parameters::add_block_matrix(std::int64_t rows, std::int64_t cols) {
  const auto own = quantised_.some.find(count());
  const WeightFormat format = own == quantised_.some.end() ? quantised_.all.value_or(format_of(dtype_)) : own->second;
  if (cols % weight_block(format) != 0) {
    throw std::invalid_argument("rows of parameter " + std::to_string(count()) + " are not whole blocks");
  }
  return add(format, rows, cols, true);
}

bool Parameters::adaptable(int index) const {
  return std::any_of(blocks_.begin(), blocks_.end(), [index](const BlockParameters& b) {
    return index == b.q || index == b.k || index == b.v || index == b.output || index == b.gate || index == b.up ||
           index == b.down;
  });
}

}  // namespace tempora
