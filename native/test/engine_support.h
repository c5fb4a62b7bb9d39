// Tiny random models and forests for tests of the engine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "test_support.h"

namespace tempora::test {

struct TinyModel {
  std::string name;
  ModelShape shape;
  bool cuda = false;
};

// One a family: Llama; Llama with one key head, tied; Qwen2 (biases); Qwen3 (head norms, own head size); Mistral
// (window 5).
std::vector<TinyModel> tiny_models();

// An engine with weights that depend on the seed alone; norms around 1, matrices' numbers of that deviation.
std::unique_ptr<Engine> random_engine(const TinyModel& model, DType dtype, std::uint64_t seed, int threads = 2,
                                      double deviation = 0.25);

std::vector<float> parameter_values(const Engine& engine, int index);
void set_parameter_values(Engine& engine, int index, const std::vector<float>& values);

// Two trees of depth up to 4 with single-token nodes, siblings that begin with the same token, and inner nodes that
// are scored.
Forest branching_forest(std::int64_t vocab, std::uint64_t seed);

// The tokens from the root to the end of a leaf, as a tree of one scored node.
struct Path {
  Forest forest;
  std::vector<std::int32_t> token;  // index in the branching forest of each token
};
std::vector<Path> paths_of(const Forest& forest);

}  // namespace tempora::test
