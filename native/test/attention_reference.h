// Attention by its definition, in f64, and what the attention tests and bench share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "forest/forest.h"

namespace tempora::attention_test {

struct Problem {
  ForestLayout layout;
  AttentionShape shape;
  std::vector<double> q, k, v, d_out;  // [T, H·C], [T, G·C], [T, G·C], [T, H·C]
};

struct Gradients {
  std::vector<double> d_q, d_k, d_v;
};

struct Solution {
  std::vector<double> out, lse;
  Gradients gradients;
};

// Tokens that a token sees, by ascending position.
std::vector<std::int32_t> visible_tokens(const ForestLayout& layout, std::int32_t token, int window);
Solution solve(const Problem& problem, bool with_gradients);

// Σ out · d_out, the function whose derivatives `solve` gives.
double objective(const Problem& problem);

using Random = std::mt19937_64;

// Nodes as (parent, length); token ids do not matter here.
ForestLayout layout_of_nodes(const std::vector<std::pair<std::int32_t, std::int32_t>>& nodes);
// Trees of depth 3 and more with single-token nodes and many siblings.
ForestLayout random_forest(Random& random, int trees, int nodes_a_tree, int longest_node);
// Normal values that both f32 and bf16 hold exactly.
Problem random_problem(Random& random, ForestLayout layout, AttentionShape shape);

// Values as a backend's matrix of a type, and back.
struct HostMatrix {
  HostMatrix(DType dtype, std::int64_t rows, std::int64_t cols);  // NaN everywhere
  HostMatrix(DType dtype, std::int64_t rows, std::int64_t cols, const std::vector<double>& values);
  Matrix view();
  std::vector<double> values() const;

  DType dtype;
  std::int64_t rows, cols;
  std::vector<std::uint8_t> bytes;
};

// What a backend computes for a problem; with the bytes, for comparisons bit by bit.
struct Run {
  Solution solution;
  std::vector<std::uint8_t> bits;
};
Run run_tree_attention(Backend& backend, const Problem& problem, DType dtype);

// max |a - b| / (1 + |b|); infinite where a is not finite or the sizes differ.
double worst_error(const std::vector<double>& a, const std::vector<double>& b);
// |a - b| / |b|, where |b| is at least that of elements of 1e-3.
double relative_norm(const std::vector<double>& a, const std::vector<double>& b);

// Calls body for each set of kernels that this CPU runs, with TEMPORA_CPU_KERNELS naming it.
void for_each_isa(const std::function<void(const std::string& isa)>& body);

}  // namespace tempora::attention_test
