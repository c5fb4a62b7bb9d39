#include "attention_reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace tempora::attention_test {

std::vector<std::int32_t> visible_tokens(const ForestLayout& layout, std::int32_t token, int window) {
  std::int32_t own = 0;
  while (layout.node_start[own + 1] <= token) ++own;
  std::vector<std::int32_t> tokens;
  for (const std::int32_t node : layout.path(own)) {
    for (std::int32_t i = layout.node_start[node]; i < layout.node_start[node + 1]; ++i) {
      const bool in_window = window == 0 || layout.position[i] > layout.position[token] - window;
      if (layout.position[i] <= layout.position[token] && in_window) tokens.push_back(i);
    }
  }
  return tokens;
}

namespace {

// One query row of one head.
void solve_row(const Problem& p, std::int32_t token, int head, const std::vector<std::int32_t>& keys,
               bool with_gradients, Solution& s) {
  const int heads = p.shape.heads, kv_heads = p.shape.kv_heads, dim = p.shape.head_dim;
  const std::size_t row = (static_cast<std::size_t>(token) * heads + head) * dim;
  const auto key_row = [&](std::int32_t key) {
    return (static_cast<std::size_t>(key) * kv_heads + head / (heads / kv_heads)) * dim;
  };
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<double> weight(keys.size());
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (std::size_t j = 0; j < keys.size(); ++j) {
    for (int c = 0; c < dim; ++c) weight[j] += scale * p.q[row + c] * p.k[key_row(keys[j]) + c];
    largest = std::max(largest, weight[j]);
  }
  for (double& w : weight) sum += w = std::exp(w - largest);
  s.lse[static_cast<std::size_t>(token) * heads + head] = largest + std::log(sum);
  double delta = 0;
  for (std::size_t j = 0; j < keys.size(); ++j) {
    weight[j] /= sum;
    for (int c = 0; c < dim; ++c) s.out[row + c] += weight[j] * p.v[key_row(keys[j]) + c];
  }
  if (!with_gradients) return;
  for (int c = 0; c < dim; ++c) delta += s.out[row + c] * p.d_out[row + c];
  for (std::size_t j = 0; j < keys.size(); ++j) {
    const std::size_t key = key_row(keys[j]);
    double d_weight = 0;
    for (int c = 0; c < dim; ++c) d_weight += p.d_out[row + c] * p.v[key + c];
    const double d_score = weight[j] * (d_weight - delta) * scale;
    for (int c = 0; c < dim; ++c) {
      s.gradients.d_q[row + c] += d_score * p.k[key + c];
      s.gradients.d_k[key + c] += d_score * p.q[row + c];
      s.gradients.d_v[key + c] += weight[j] * p.d_out[row + c];
    }
  }
}

std::uint16_t to_bf16(double value) {
  const float f = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

double from_bf16(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

}  // namespace

Solution solve(const Problem& p, bool with_gradients) {
  Solution s;
  s.out.assign(p.q.size(), 0);
  s.lse.assign(static_cast<std::size_t>(p.layout.tokens) * p.shape.heads, 0);
  s.gradients = {std::vector<double>(p.q.size()), std::vector<double>(p.k.size()), std::vector<double>(p.v.size())};
  for (std::int32_t token = 0; token < p.layout.tokens; ++token) {
    const std::vector<std::int32_t> keys = visible_tokens(p.layout, token, p.shape.window);
    for (int head = 0; head < p.shape.heads; ++head) solve_row(p, token, head, keys, with_gradients, s);
  }
  return s;
}

double objective(const Problem& problem) {
  const Solution s = solve(problem, false);
  double total = 0;
  for (std::size_t i = 0; i < s.out.size(); ++i) total += s.out[i] * problem.d_out[i];
  return total;
}

ForestLayout layout_of_nodes(const std::vector<std::pair<std::int32_t, std::int32_t>>& nodes) {
  Forest forest;
  forest.node_start.push_back(0);
  for (const auto& [parent, length] : nodes) {
    forest.tokens.resize(forest.tokens.size() + static_cast<std::size_t>(length));
    forest.node_start.push_back(static_cast<std::int32_t>(forest.tokens.size()));
    forest.node_parent.push_back(parent);
    forest.node_scored.push_back(1);
  }
  return layout_of(forest);
}

ForestLayout random_forest(Random& random, int trees, int nodes_a_tree, int longest_node) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); };
  std::vector<std::pair<std::int32_t, std::int32_t>> nodes;
  for (int tree = 0; tree < trees; ++tree) {
    const auto root = static_cast<std::int32_t>(nodes.size());
    for (int i = 0; i < nodes_a_tree; ++i) {
      // The first four hang on each other, so that the depth is at least 3; many of the others are the root's.
      const std::int32_t parent = i == 0 ? -1 : i < 4 ? root + i - 1 : below(3) == 0 ? root : root + below(i);
      nodes.emplace_back(parent, below(3) == 0 ? 1 : 1 + below(longest_node));
    }
  }
  return layout_of_nodes(nodes);
}

Problem random_problem(Random& random, ForestLayout layout, AttentionShape shape) {
  std::normal_distribution<double> normal;
  const auto values = [&](std::int64_t cols) {
    std::vector<double> x(static_cast<std::size_t>(layout.tokens * cols));
    for (double& value : x) value = from_bf16(to_bf16(normal(random)));
    return x;
  };
  const std::int64_t wide = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
  const std::int64_t narrow = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  Problem problem;
  problem.q = values(wide);
  problem.k = values(narrow);
  problem.v = values(narrow);
  problem.d_out = values(wide);
  problem.layout = std::move(layout);
  problem.shape = shape;
  return problem;
}

HostMatrix::HostMatrix(DType type, std::int64_t row_count, std::int64_t col_count)
    : dtype(type),
      rows(row_count),
      cols(col_count),
      bytes(static_cast<std::size_t>(rows * cols) * size_of(type), 0xFF) {}

HostMatrix::HostMatrix(DType type, std::int64_t row_count, std::int64_t col_count, const std::vector<double>& values)
    : HostMatrix(type, row_count, col_count) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto f = static_cast<float>(values[i]);
    const std::uint16_t half = to_bf16(values[i]);
    if (dtype == DType::f32) std::memcpy(&bytes[i * 4], &f, 4);
    if (dtype == DType::bf16) std::memcpy(&bytes[i * 2], &half, 2);
  }
}

Matrix HostMatrix::view() { return {bytes.data(), dtype, rows, cols}; }

std::vector<double> HostMatrix::values() const {
  std::vector<double> values(static_cast<std::size_t>(rows * cols));
  for (std::size_t i = 0; i < values.size(); ++i) {
    float f;
    std::uint16_t half;
    if (dtype == DType::f32) {
      std::memcpy(&f, &bytes[i * 4], 4);
      values[i] = f;
    } else {
      std::memcpy(&half, &bytes[i * 2], 2);
      values[i] = from_bf16(half);
    }
  }
  return values;
}

Run run_tree_attention(Backend& backend, const Problem& p, DType dtype) {
  const std::int64_t tokens = p.layout.tokens;
  const std::int64_t wide = static_cast<std::int64_t>(p.shape.heads) * p.shape.head_dim;
  const std::int64_t narrow = static_cast<std::int64_t>(p.shape.kv_heads) * p.shape.head_dim;
  HostMatrix q(dtype, tokens, wide, p.q), k(dtype, tokens, narrow, p.k), v(dtype, tokens, narrow, p.v);
  HostMatrix d_out(dtype, tokens, wide, p.d_out);
  HostMatrix out(dtype, tokens, wide), lse(DType::f32, tokens, p.shape.heads);
  HostMatrix d_q(dtype, tokens, wide), d_k(dtype, tokens, narrow), d_v(dtype, tokens, narrow);
  const auto plan = backend.plan_attention(p.layout);
  backend.tree_attention(*plan, p.shape, q.view(), k.view(), v.view(), out.view(), lse.view().f32());
  backend.tree_attention_backward(*plan, p.shape, q.view(), k.view(), v.view(), out.view(), lse.view().f32(),
                                  d_out.view(), d_q.view(), d_k.view(), d_v.view());
  Run run;
  run.solution = {out.values(), lse.values(), {d_q.values(), d_k.values(), d_v.values()}};
  for (const HostMatrix* m : {&out, &lse, &d_q, &d_k, &d_v}) {
    run.bits.insert(run.bits.end(), m->bytes.begin(), m->bytes.end());
  }
  return run;
}

double worst_error(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(a[i] - b[i]) / (1 + std::abs(b[i])));
  }
  return worst;
}

double relative_norm(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference) / (std::sqrt(norm) + 1e-3 * std::sqrt(static_cast<double>(a.size())));
}

}  // namespace tempora::attention_test
