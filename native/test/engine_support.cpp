#include "engine_support.h"

#include <cmath>
#include <cstring>

namespace tempora::test {
namespace {

ModelShape llama_shape() {
  ModelShape shape;
  shape.vocab_size = 61;
  shape.hidden_size = 24;
  shape.intermediate_size = 40;
  shape.layers = 3;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_dim = 6;
  shape.norm_eps = 1e-5f;
  shape.windows = {0, 0, 0};
  for (int i = 0; i < 3; ++i) shape.rotary_frequencies.push_back(std::pow(100.0f, -2.0f * static_cast<float>(i) / 6));
  shape.max_positions = 256;
  return shape;
}

}  // namespace

std::vector<TinyModel> tiny_models() {
  std::vector<TinyModel> models(6, {"llama", llama_shape(), false});
  models[1].name = "llama, one key head, tied";
  models[1].shape.kv_heads = 1;
  models[1].shape.tied_head = true;
  models[2].name = "qwen2";
  models[2].shape.qkv_bias = true;
  models[2].shape.output_bias = true;
  models[3].name = "qwen3";
  models[3].shape.qk_norm = true;
  models[3].shape.head_dim = 10;
  models[3].shape.rotary_frequencies = {1.0f, 0.4f, 0.16f, 0.06f, 0.02f};
  models[4].name = "mistral";
  models[4].shape.windows = {5, 5, 0};
  models[5].name = "llama of one layer";
  models[5].shape.layers = 1;
  models[5].shape.windows = {0};
  return models;
}

std::unique_ptr<Engine> random_engine(const TinyModel& model, DType dtype, std::uint64_t seed, int threads,
                                      double deviation) {
  const ModelShape& shape = model.shape;
  EngineOptions options;
  options.dtype = dtype;
  options.threads = threads;
  options.cuda = model.cuda;
  auto engine = std::make_unique<Engine>(shape, options);
  for (int i = 0; i < engine->parameter_count(); ++i) {
    const auto size = static_cast<std::int64_t>(engine->parameter_bytes(i) / size_of(dtype));
    const bool norm_or_bias = size <= std::max(shape.hidden_size, shape.query_size());
    Random random(seed * 1000 + static_cast<std::uint64_t>(i));
    std::vector<float> values;
    for (const double value : random.normals(size, norm_or_bias ? 0.1 : deviation)) {
      values.push_back(static_cast<float>(norm_or_bias ? 1 + value : value));
    }
    set_parameter_values(*engine, i, values);
  }
  return engine;
}

std::vector<float> parameter_values(const Engine& engine, int index) {
  const std::vector<std::uint8_t> bytes = engine.get_parameter(index);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

void set_parameter_values(Engine& engine, int index, const std::vector<float>& values) {
  engine.set_parameter(index, DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()),
                       values.size() * sizeof(float));
}

Forest branching_forest(std::int64_t vocab, std::uint64_t seed) {
  struct Node {
    std::int32_t parent;
    std::int32_t length;
    bool scored;
  };
  const std::vector<Node> nodes = {
      {-1, 9, false}, {0, 4, false}, {0, 1, true}, {1, 7, true},  {1, 1, true},  // 4: a single token under depth 1
      {3, 1, true},   {3, 6, true},  {6, 3, true}, {6, 2, true},                 // depth 4
      {-1, 1, true},  {9, 5, true},  {9, 1, true}, {11, 3, true},                // a root of one token
  };
  Random random(seed);
  Forest forest;
  forest.node_start.push_back(0);
  for (const Node& node : nodes) {
    for (std::int32_t i = 0; i < node.length; ++i) forest.tokens.push_back(random.tokens(1, vocab)[0]);
    forest.node_start.push_back(static_cast<std::int32_t>(forest.tokens.size()));
    forest.node_parent.push_back(node.parent);
    forest.node_scored.push_back(node.scored ? 1 : 0);
  }
  // Siblings 7 and 8 begin with the same token.
  forest.tokens[forest.node_start[8]] = forest.tokens[forest.node_start[7]];
  return forest;
}

std::vector<Path> paths_of(const Forest& forest) {
  const ForestLayout layout = layout_of(forest);
  std::vector<Path> paths;
  for (std::int32_t leaf = 0; leaf < layout.nodes; ++leaf) {
    bool has_child = false;
    for (const std::int32_t parent : layout.node_parent) has_child = has_child || parent == leaf;
    if (has_child) continue;
    Path path;
    for (const std::int32_t node : layout.path(leaf)) {
      for (std::int32_t i = layout.node_start[node]; i < layout.node_start[node + 1]; ++i) {
        path.token.push_back(i);
        path.forest.tokens.push_back(forest.tokens[i]);
      }
    }
    path.forest.node_start = {0, static_cast<std::int32_t>(path.token.size())};
    path.forest.node_parent = {-1};
    path.forest.node_scored = {1};
    paths.push_back(std::move(path));
  }
  return paths;
}

}  // namespace tempora::test
