// Operations of several others, one after another where a backend has nothing better.
#include <utility>

#include "backend.h"

namespace tempora {

void Backend::products(const Matrix& x, const std::vector<WeightProduct>& products) {
  for (const WeightProduct& one : products) {
    product(x, one.weight, one.out, false);
    if (one.narrow.weight != nullptr) row_product(one.narrow.narrow, *one.narrow.weight, one.out, true);
  }
}

void Backend::residual_product(const Matrix& x, const WeightProduct& one, const Matrix& residual) {
  if (residual.data != one.out.data) copy(one.out.data, residual.data, residual.bytes());
  product(x, one.weight, one.out, true);
  if (one.narrow.weight != nullptr) row_product(one.narrow.narrow, *one.narrow.weight, one.out, true);
}

void Backend::transposed_products(const std::vector<TransposedProduct>& products, const Matrix& d_x) {
  bool accumulate = false;
  for (const TransposedProduct& one : products) {
    transposed_product(one.d_out, one.weight, d_x, std::exchange(accumulate, true));
    if (one.narrow.weight == nullptr) continue;
    if (!narrow_input_gradient(one.narrow.narrow, *one.narrow.weight, {}, d_x)) {
      throw std::logic_error("a narrow term of a backend that does not add it");
    }
  }
}

void Backend::gradient_products(const Matrix& x, const std::vector<GradientProduct>& products) {
  for (const GradientProduct& one : products) gradient_product(one.d_out, x, one.d_weight, one.accumulate);
}

void Backend::recomputed_norm_backward(const RecomputedNorm& norm) {
  rms_norm(norm.x, norm.weight, norm.eps, norm.y, norm.rstd);
  rms_norm_backward(norm.x, norm.weight, norm.y.dtype, norm.rstd, norm.d_y, norm.d_x, norm.d_weight);
  if (norm.rounded.data != nullptr) cast(norm.d_x, norm.rounded);
}

void Backend::add_biases_and_norms(const AttentionInputs& inputs) {
  for (const HeadRows* rows : {&inputs.q, &inputs.k, &inputs.v}) {
    const Matrix& product = rows->product();
    if (rows->bias != nullptr) add_bias(product, rows->bias, product.dtype);
  }
  for (const HeadRows* rows : {&inputs.q, &inputs.k}) {
    if (rows->norm == nullptr) continue;
    head_norm(rows->raw, inputs.shape.head_dim, rows->norm, inputs.norm_eps, rows->out, rows->rstd);
  }
}

void Backend::attention_inputs(const AttentionInputs& inputs) {
  const int head_dim = inputs.shape.head_dim;
  add_biases_and_norms(inputs);
  rope(inputs.q.out, head_dim, inputs.positions, inputs.frequencies, false);
  rope(inputs.k.out, head_dim, inputs.positions, inputs.frequencies, false);
  const CachePlaces& cache = inputs.cache;
  if (cache.slots == nullptr) return;
  write_cache(inputs.k.out, inputs.v.out, cache.slots, inputs.shape, cache.keys, cache.values);
}

void Backend::row_attention_inputs(const Matrix& x, const std::vector<const Weight*>& weights,
                                   const AttentionInputs& inputs) {
  row_products(x, {{*weights.at(0), inputs.q.product()},
                   {*weights.at(1), inputs.k.product()},
                   {*weights.at(2), inputs.v.product()}});
  attention_inputs(inputs);
}

void Backend::row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out) {
  row_products(x, {gate, up});
  swiglu(gate.out, up.out, out);
}

void Backend::row_product_norm(const Matrix& x, const Weight& weight, const Matrix& sum, const void* norm, float eps,
                               const Matrix& normed, float* rstd) {
  row_product(x, weight, sum, true);
  rms_norm(sum, norm, eps, normed, rstd);
}

}  // namespace tempora
