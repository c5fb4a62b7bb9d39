#include "parameters.h"

#include <stdexcept>

namespace tempora {

Parameters::Parameters(Backend& backend, const ModelShape& shape, DType dtype) : backend_(backend), dtype_(dtype) {
  const std::int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
  const std::int64_t queries = shape.query_size(), keys = shape.key_size();
  embedding_ = add(shape.vocab_size, hidden, true);
  for (int layer = 0; layer < shape.layers; ++layer) {
    BlockParameters block;
    block.input_norm = add(1, hidden, false);
    block.q = add(queries, hidden, true);
    block.k = add(keys, hidden, true);
    block.v = add(keys, hidden, true);
    if (shape.qkv_bias) {
      block.q_bias = add(1, queries, false);
      block.k_bias = add(1, keys, false);
      block.v_bias = add(1, keys, false);
    }
    if (shape.qk_norm) {
      block.q_norm = add(1, shape.head_dim, false);
      block.k_norm = add(1, shape.head_dim, false);
    }
    block.output = add(hidden, queries, true);
    if (shape.output_bias) block.output_bias = add(1, hidden, false);
    block.post_norm = add(1, hidden, false);
    block.gate = add(inner, hidden, true);
    block.up = add(inner, hidden, true);
    block.down = add(hidden, inner, true);
    blocks_.push_back(block);
  }
  final_norm_ = add(1, hidden, false);
  head_ = shape.tied_head ? embedding_ : add(shape.vocab_size, hidden, true);
}

int Parameters::add(std::int64_t rows, std::int64_t cols, bool decays) {
  Parameter parameter;
  parameter.decays = decays;
  parameter.weight = backend_.make_weight(format_of(dtype_), rows, cols);
  list_.push_back(std::move(parameter));
  return count() - 1;
}

Matrix Parameters::gradient(int index) const {
  const Parameter& p = at(index);
  return {p.gradient.data(), DType::f32, p.weight->rows, p.weight->cols};
}

void Parameters::require_loaded() const {
  for (int i = 0; i < count(); ++i) {
    if (!at(i).loaded) throw std::logic_error("parameter " + std::to_string(i) + " was never set");
  }
}

void Parameters::ensure_gradients() {
  for (Parameter& p : list_) {
    if (p.gradient) continue;
    const std::size_t bytes = static_cast<std::size_t>(p.size()) * 4;
    p.gradient = backend_.allocate(bytes, MemoryUse::gradients);
    backend_.zero(p.gradient.data(), bytes);
  }
}

void Parameters::zero_gradients() {
  for (Parameter& p : list_) {
    if (p.gradient) backend_.zero(p.gradient.data(), p.gradient.bytes());
  }
}

void Parameters::ensure_moments() {
  for (Parameter& p : list_) {
    if (!p.moments) p.moments = backend_.make_moments(MomentsFormat::f32, p.size());
  }
}

void Parameters::drop_training_state() {
  for (Parameter& p : list_) {
    p.gradient = Buffer();
    p.moments = {};
  }
}

}  // namespace tempora
