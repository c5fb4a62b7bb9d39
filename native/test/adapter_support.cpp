#include "adapter_support.h"

#include <algorithm>

namespace tempora::test {

AdapterSpec spec_of(const Engine& engine, const ModelShape& shape, bool all, float dropout) {
  AdapterSpec spec;
  spec.dropout = dropout;
  spec.seed = 17;
  const int matrices = engine.parameter_count() - (shape.tied_head ? 0 : 1);
  const auto largest_vector = static_cast<std::size_t>(std::max(shape.hidden_size, shape.query_size())) * 4;
  for (int i = 1; i < matrices; ++i) {
    if (engine.parameter_bytes(i) <= largest_vector) continue;
    if (all || i % 2 == 0) spec.modules.push_back({i, 1 + i % 3, 0.5f + 0.25f * static_cast<float>(i % 4)});
  }
  return spec;
}

void set_tensors(Engine& engine, int adapter, std::uint64_t seed, double scale_of_b) {
  for (int t = 0; t < engine.parameter_count(adapter); ++t) {
    Random random(seed * 1000 + static_cast<std::uint64_t>(t));
    const auto size = static_cast<std::int64_t>(engine.parameter_bytes(t, adapter) / 4);
    std::vector<float> values;
    for (const double value : random.normals(size, t % 2 == 0 ? 0.3 : scale_of_b)) {
      values.push_back(static_cast<float>(value));
    }
    engine.set_parameter(t, DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * 4,
                         adapter);
  }
}

int add_random(Engine& engine, const ModelShape& shape, std::uint64_t seed, float dropout, bool all) {
  const int adapter = engine.add_adapter(spec_of(engine, shape, all, dropout));
  set_tensors(engine, adapter, seed, 0.3);
  return adapter;
}

}  // namespace tempora::test
