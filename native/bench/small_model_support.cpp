#include "small_model_support.h"

#include <cmath>
#include <vector>

namespace tempora {
namespace {

ModelShape small_shape() {
  ModelShape shape;
  shape.vocab_size = 49152;
  shape.hidden_size = 576;
  shape.intermediate_size = 1536;
  shape.layers = 30;
  shape.heads = 9;
  shape.kv_heads = 3;
  shape.head_dim = 64;
  shape.norm_eps = 1e-5f;
  shape.tied_head = true;
  shape.windows.assign(static_cast<std::size_t>(shape.layers), 0);
  for (int i = 0; i < shape.head_dim / 2; ++i) {
    shape.rotary_frequencies.push_back(std::pow(1e5f, -2.0f * static_cast<float>(i) / 64));
  }
  shape.max_positions = 2048;
  return shape;
}

}  // namespace

std::unique_ptr<Engine> small_engine(int threads, float final_norm) {
  EngineOptions options;
  options.dtype = DType::bf16;
  options.threads = threads;
  auto engine = std::make_unique<Engine>(small_shape(), options);
  std::uint32_t state = 1;
  for (int i = 0; i < engine->parameter_count(); ++i) {
    std::vector<float> values(engine->parameter_bytes(i) / 2);
    const float one = values.size() != 576 ? 0.0f : i + 1 == engine->parameter_count() ? final_norm : 1.0f;
    for (float& value : values) {
      state = state * 1664525u + 1013904223u;
      value = (static_cast<float>(state >> 8) * 0x1p-24f - 0.5f) * 0.1f + one;
    }
    engine->set_parameter(i, DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * 4);
  }
  return engine;
}

Forest small_forest(int trees, int answers) {
  Forest forest;
  forest.node_start.push_back(0);
  for (int tree = 0; tree < trees; ++tree) {
    for (int node = 0; node <= answers; ++node) {
      for (int i = 0; i < 128; ++i) {
        const auto at = static_cast<std::uint32_t>(forest.tokens.size());
        forest.tokens.push_back(static_cast<std::int32_t>(at * 2654435761u % 49152));
      }
      forest.node_start.push_back(static_cast<std::int32_t>(forest.tokens.size()));
      forest.node_parent.push_back(node == 0 ? -1 : tree * (answers + 1));
      forest.node_scored.push_back(node == 0 ? 0 : 1);
    }
  }
  return forest;
}

GenerationRequest small_request(int samples) {
  GenerationRequest request;
  request.forest = small_forest(1, 0);
  request.leaves = {0};
  request.samples = {samples};
  request.prompt_keys = {1};
  request.seeds = {1};
  request.options.max_rows = samples;
  return request;
}

}  // namespace tempora
