#include "cached_decoder.h"

#include <stdexcept>

namespace tempora {
namespace {

class CacheOperations : public BlockOperations {
 public:
  CacheOperations(const BlockContext& context, const KvCache& cache, const CachePlan& plan, const std::int32_t* slots,
                  Arena& scratch)
      : BlockOperations(context), cache_(cache), plan_(plan), slots_(slots), scratch_(scratch) {}

  void project_each(const Matrix& x, std::initializer_list<Projection> projections) override {
    std::vector<WeightProduct> products;
    for (const Projection& one : projections) products.push_back({weight(one.parameter), one.out});
    context_.backend.row_products(x, products);
    for (const Projection& one : projections) add_own_adapters(x, one.parameter, one.out);
  }

  void project_onto(const Matrix& x, int parameter, const Matrix& residual, const Matrix& out) override {
    require_in_place(residual, out);
    context_.backend.row_product(x, weight(parameter), out, true);
    add_own_adapters(x, parameter, out);
  }

  // What adapters add belongs between a product and what follows it.
  void project_inputs(const Matrix& x, const BlockParameters& p, const AttentionInputs& inputs) override {
    if (adapted()) return BlockOperations::project_inputs(x, p, inputs);
    context_.backend.row_attention_inputs(x, {&weight(p.q), &weight(p.k), &weight(p.v)}, inputs);
  }

  void project_swiglu(const Matrix& x, const Projection& gate, const Projection& up, const Matrix& out) override {
    if (adapted()) return BlockOperations::project_swiglu(x, gate, up, out);
    context_.backend.row_swiglu(x, {weight(gate.parameter), gate.out}, {weight(up.parameter), up.out}, out);
  }

  void project_norm(const Matrix& x, int parameter, const Matrix& residual, const Matrix& sum, int norm,
                    const Matrix& normed, float* rstd) override {
    require_in_place(residual, sum);
    if (adapted()) return BlockOperations::project_norm(x, parameter, residual, sum, norm, normed, rstd);
    context_.backend.row_product_norm(x, weight(parameter), sum, context_.parameters.data(norm),
                                      context_.shape.norm_eps, normed, rstd);
  }

  CachePlaces cache_places(int layer) override { return {slots_, cache_.keys(layer), cache_.values(layer)}; }

  void attend(int layer, const Matrix& q, const Matrix&, const Matrix&, const Matrix& out, float*) override {
    const AttentionShape shape = attention_shape(context_.shape, layer);
    context_.backend.cached_attention(plan_, shape, q, cache_.keys(layer), cache_.values(layer), out);
  }

 private:
  bool adapted() const { return !context_.adapters.runs.list().empty(); }
  // Generation keeps no block's input.
  static void require_in_place(const Matrix& residual, const Matrix& sum) {
    if (residual.data != sum.data) throw std::logic_error("generation adds to its residual stream where it lies");
  }
  const Weight& weight(int parameter) const { return context_.parameters.weight(parameter); }
  void add_own_adapters(const Matrix& x, int parameter, const Matrix& out) {
    add_adapters(context_.backend, scratch_, context_.adapters, x, parameter, out, Products::by_rows);
  }

  const KvCache& cache_;
  const CachePlan& plan_;
  const std::int32_t* slots_;  // device
  Arena& scratch_;
};

}  // namespace

void CacheRows::begin(std::int32_t token, std::int32_t position, std::int32_t slot, std::int32_t group,
                      const Adapter* adapter) {
  tokens.push_back(token);
  positions.push_back(position);
  slots.push_back(slot);
  keys += position + 1;
  paths.begin_row(position, group);
  adapters.runs.add(1, adapter);
  last_adapter = adapter;
}

void CacheRows::repeat_last() {
  tokens.push_back(tokens.back());
  positions.push_back(positions.back());
  slots.push_back(slots.back());
  paths.repeat_row();
  adapters.runs.add(1, last_adapter);
}

Matrix forward_cached(Engine::Impl& impl, const KvCache& cache, CacheRows& rows, std::int64_t wanted,
                      const CancelFlag* cancel) {
  Arena& scratch = impl.decoder.scratch();
  const std::size_t count = rows.tokens.size();
  // Small copies cost more than their bytes: one for all.
  std::vector<std::int32_t> inputs = rows.tokens;
  inputs.insert(inputs.end(), rows.positions.begin(), rows.positions.end());
  inputs.insert(inputs.end(), rows.slots.begin(), rows.slots.end());
  const std::int32_t* tokens = scratch.upload(inputs);
  const std::unique_ptr<CachePlan> plan = impl.backend->plan_cache(rows.paths.take());
  return forward_cached(impl, cache, {tokens, tokens + count, tokens + 2 * count, static_cast<std::int64_t>(count)},
                        wanted, *plan, rows.adapters, cancel);
}

Matrix forward_cached(Engine::Impl& impl, const KvCache& cache, const DeviceRows& rows, std::int64_t wanted,
                      const CachePlan& plan, const AdapterPass& adapters, const CancelFlag* cancel) {
  Backend& backend = *impl.backend;
  Arena& scratch = impl.decoder.scratch();
  const ModelShape& shape = impl.shape;
  const BlockContext context{backend,    shape,   impl.parameters, rows.positions, impl.decoder.frequencies(),
                             rows.count, adapters};
  CacheOperations operations(context, cache, plan, rows.slots, scratch);
  const Matrix x = scratch.matrix(rows.count, shape.hidden_size, DType::f32);
  const Matrix normed = scratch.matrix(rows.count, shape.hidden_size, impl.parameters.dtype());
  const AttentionActivations whole = allocate_attention(scratch, context);
  RowActivations all = allocate_rows(scratch, context);
  all.x_in = all.x_mid = x;
  all.attention = whole.attention;
  const int last = shape.layers - 1;
  const auto attend = [&](int layer) {
    if (cancel != nullptr) cancel->check();
    inputs_forward(context, layer, operations, whole, normed);
    if (layer < last || wanted > 0) {
      operations.attend(layer, whole.q, whole.k, whole.v, whole.attention, whole.lse);
    }
  };
  backend.embed(rows.tokens, impl.parameters.weight(impl.parameters.embedding()), x);
  backend.rms_norm(x, impl.parameters.data(impl.parameters.block(0).input_norm), shape.norm_eps, normed, whole.rstd_in);
  for (int layer = 0; layer < last; ++layer) {
    attend(layer);
    rows_forward(context, layer, operations, scratch, all, normed, Until::next_norm, x);
  }
  attend(last);
  const std::int64_t first = rows.count - wanted;
  const Matrix result = x.row_range(first, wanted);
  if (wanted == 0) return result;
  const AdapterPass of_wanted{.runs = adapters.runs.from(first)};
  const BlockContext tail{backend, shape, impl.parameters, nullptr, impl.decoder.frequencies(), wanted, of_wanted};
  CacheOperations tail_operations(tail, cache, plan, rows.slots, scratch);
  const RowActivations end{.attention = all.attention.row_range(first, wanted),
                           .x_in = result,
                           .x_mid = result,
                           .gate = all.gate.row_range(0, wanted),
                           .up = all.up.row_range(0, wanted),
                           .rstd_post = all.rstd_post};
  rows_forward(tail, last, tail_operations, scratch, end, normed.row_range(0, wanted), Until::end, result);
  return result;
}

}  // namespace tempora
