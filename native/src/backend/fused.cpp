// Operations of several others, one after another where a backend has nothing better.
#include "backend.h"

namespace tempora {

void Backend::attention_inputs(const AttentionInputs& inputs) {
  const int head_dim = inputs.shape.head_dim;
  for (const HeadRows* rows : {&inputs.q, &inputs.k, &inputs.v}) {
    const Matrix& product = rows->product();
    if (rows->bias != nullptr) add_bias(product, rows->bias, product.dtype);
  }
  for (const HeadRows* rows : {&inputs.q, &inputs.k}) {
    if (rows->norm == nullptr) continue;
    head_norm(rows->raw, head_dim, rows->norm, inputs.norm_eps, rows->out, rows->rstd);
  }
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

void Backend::row_swiglu(const Matrix& x, const RowProduct& gate, const RowProduct& up, const Matrix& out) {
  row_products(x, {gate, up});
  swiglu(gate.out, up.out, out);
}

void Backend::row_product_norm(const Matrix& x, const Weight& weight, const Matrix& sum, const void* norm, float eps,
                               const Matrix& normed, float* rstd) {
  row_product(x, weight, sum, true);
  rms_norm(sum, norm, eps, normed, rstd);
}

}  // namespace tempora
