// One after another, where a backend has nothing better.
#include "attention_inputs.h"

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

}  // namespace tempora
