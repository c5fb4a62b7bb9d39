#include "attention_cases.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "../attention_reference.h"
#include "engine/kv_cache.h"

namespace tempora::test {
namespace {

using attention_test::layout_of_nodes;
using attention_test::Problem;
using attention_test::random_forest;
using attention_test::random_problem;
using attention_test::relative_norm;
using attention_test::Solution;
using attention_test::worst_error;

void expect_near(const std::string& what, const std::vector<double>& got, const std::vector<double>& want,
                 DType dtype) {
  const double error = dtype == DType::f32 ? worst_error(got, want) : relative_norm(got, want);
  expect(error < (dtype == DType::f32 ? 1e-5 : 6e-3), what + " is off by " + std::to_string(error));
}

std::int64_t query_columns(const AttentionShape& shape) {
  return static_cast<std::int64_t>(shape.heads) * shape.head_dim;
}
std::int64_t key_columns(const AttentionShape& shape) {
  return static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
}

void check_tree(Device& device, DType dtype, const Problem& p) {
  const Solution want = attention_test::solve(p, true);
  const std::int64_t tokens = p.layout.tokens, wide = query_columns(p.shape), narrow = key_columns(p.shape);
  const Tensor q = device.upload(tokens, wide, dtype, p.q), k = device.upload(tokens, narrow, dtype, p.k);
  const Tensor v = device.upload(tokens, narrow, dtype, p.v), d_out = device.upload(tokens, wide, dtype, p.d_out);
  const Tensor out = device.output(tokens, wide, dtype), lse = device.output(tokens, p.shape.heads, DType::f32);
  const Tensor d_q = device.output(tokens, wide, dtype), d_k = device.output(tokens, narrow, dtype);
  const Tensor d_v = device.output(tokens, narrow, dtype);
  const auto plan = device.backend.plan_attention(p.layout);
  device.backend.tree_attention(*plan, p.shape, q.matrix, k.matrix, v.matrix, out.matrix, lse.matrix.f32());
  device.backend.tree_attention_backward(*plan, p.shape, q.matrix, k.matrix, v.matrix, out.matrix, lse.matrix.f32(),
                                         d_out.matrix, d_q.matrix, d_k.matrix, d_v.matrix);
  expect_near("out", device.read(out), want.out, dtype);
  expect_near("lse", device.read(lse), want.lse, DType::f32);
  expect_near("d_q", device.read(d_q), want.gradients.d_q, dtype);
  expect_near("d_k", device.read(d_k), want.gradients.d_k, dtype);
  expect_near("d_v", device.read(d_v), want.gradients.d_v, dtype);
}

// Scores far apart must neither overflow nor divide by zero.
void check_large_scores(Device& device, DType dtype) {
  attention_test::Random random(6);
  Problem p = random_problem(random, random_forest(random, 1, 6, 20), {2, 1, 64, 0});
  for (double& value : p.q) value *= 64;
  const Solution want = attention_test::solve(p, false);
  const std::int64_t tokens = p.layout.tokens;
  const Tensor q = device.upload(tokens, 128, dtype, p.q), k = device.upload(tokens, 64, dtype, p.k);
  const Tensor v = device.upload(tokens, 64, dtype, p.v);
  const Tensor out = device.output(tokens, 128, dtype), lse = device.output(tokens, 2, DType::f32);
  const auto plan = device.backend.plan_attention(p.layout);
  device.backend.tree_attention(*plan, p.shape, q.matrix, k.matrix, v.matrix, out.matrix, lse.matrix.f32());
  const double error = worst_error(device.read(out), want.out);
  expect(error < (dtype == DType::f32 ? 1e-3 : 1e-2), "out is off by " + std::to_string(error));
  expect_near("lse", device.read(lse), want.lse, DType::f32);
}

// A forest's keys and values in a cache, each node in pages of its own, in random order.
struct CachedForest {
  CachedForest(Device& device, DType dtype, const Problem& problem) {
    const ForestLayout& layout = problem.layout;
    std::vector<std::int32_t> free_pages(static_cast<std::size_t>(layout.tokens + layout.nodes));
    std::iota(free_pages.begin(), free_pages.end(), 0);
    std::shuffle(free_pages.begin(), free_pages.end(), std::mt19937_64(1));
    const auto bytes = static_cast<std::int64_t>(
        device.backend.cache_bytes(static_cast<int>(free_pages.size()), problem.shape, DType::f32));
    keys = device.output(1, bytes / 4, DType::f32);
    values = device.output(1, bytes / 4, DType::f32);
    std::vector<std::int32_t> slots(static_cast<std::size_t>(layout.tokens));
    for (std::int32_t node = 0; node < layout.nodes; ++node) {
      CachedTokens tokens;
      tokens.length = layout.node_length(node);
      for (std::int64_t i = 0; i < pages_for(tokens.length); ++i) {
        tokens.pages.push_back(free_pages.back());
        free_pages.pop_back();
      }
      for (std::int32_t i = 0; i < tokens.length; ++i) slots[layout.node_start[node] + i] = tokens.slot(i);
      node_of.insert(node_of.end(), static_cast<std::size_t>(tokens.length), node);
      nodes.push_back(std::move(tokens));
    }
    const std::int64_t columns = key_columns(problem.shape);
    const Tensor k = device.upload(layout.tokens, columns, dtype, problem.k);
    const Tensor v = device.upload(layout.tokens, columns, dtype, problem.v);
    const Ints device_slots = device.ints(slots);
    device.backend.write_cache(k.matrix, v.matrix, device_slots.data(), problem.shape, keys.buffer.data(),
                               values.buffer.data());
  }

  Tensor keys, values;
  std::vector<CachedTokens> nodes;
  std::vector<std::int32_t> node_of;
};

std::vector<double> attend(Device& device, DType dtype, const Problem& problem, const CachedForest& cache,
                           const std::vector<std::int32_t>& tokens) {
  const ForestLayout& layout = problem.layout;
  const std::int64_t columns = query_columns(problem.shape);
  PathBuilder builder;
  std::vector<double> queries;
  std::int32_t group = 0, last_parent = -1;
  for (const std::int32_t token : tokens) {
    const std::int32_t own = cache.node_of[token];
    const auto path = layout.path(own);
    // Tokens of a node and of its siblings have their ancestors in common.
    const std::int32_t parent = path.size() > 1 ? path[path.size() - 2] : -1;
    if (std::exchange(last_parent, parent) != parent) ++group;
    builder.begin_row(layout.position[token], group);
    for (const std::int32_t node : path) {
      builder.add_segment(cache.nodes[node],
                          node == own ? token - layout.node_start[own] + 1 : cache.nodes[node].length);
    }
    queries.insert(queries.end(), problem.q.begin() + token * columns, problem.q.begin() + (token + 1) * columns);
  }
  const auto rows = static_cast<std::int64_t>(tokens.size());
  const Tensor q = device.upload(rows, columns, dtype, queries), out = device.output(rows, columns, dtype);
  const auto plan = device.backend.plan_cache(builder.take());
  device.backend.cached_attention(*plan, problem.shape, q.matrix, cache.keys.buffer.data(), cache.values.buffer.data(),
                                  out.matrix);
  return device.read(out);
}

void check_cached(Device& device, DType dtype, const Problem& problem) {
  const CachedForest cache(device, dtype, problem);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(problem.layout.tokens));
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::vector<double> together = attend(device, dtype, problem, cache, tokens);
  expect_near("out", together, attention_test::solve(problem, false).out, dtype);
  const std::int64_t columns = query_columns(problem.shape);
  for (std::int32_t token = 0; token < problem.layout.tokens; token += 17) {
    const std::vector<double> row(together.begin() + token * columns, together.begin() + (token + 1) * columns);
    expect(attend(device, dtype, problem, cache, {token}) == row, "a row alone differs from the same row among others");
  }
}

}  // namespace

std::vector<OpCase> attention_cases() {
  constexpr AttentionShape shapes[] = {{1, 1, 16, 0},   {4, 2, 24, 0}, {9, 3, 64, 0}, {6, 1, 80, 5},
                                       {4, 2, 128, 33}, {2, 2, 96, 1}, {3, 3, 18, 7}, {2, 1, 256, 0}};
  attention_test::Random random(1);
  std::vector<ForestLayout> layouts{layout_of_nodes({{-1, 1}}),
                                    layout_of_nodes({{-1, 40}, {0, 17}, {0, 1}, {0, 6}, {1, 16}, {1, 9}, {-1, 2}})};
  for (int i = 0; i < 2; ++i) layouts.push_back(random_forest(random, 1 + i, 8, 12));
  std::vector<OpCase> cases;
  for (const ForestLayout& layout : layouts) {
    for (const AttentionShape& shape : shapes) {
      const Problem problem = random_problem(random, layout, shape);
      const std::string what = " T=" + std::to_string(layout.tokens) + " C=" + std::to_string(shape.head_dim) +
                               " window=" + std::to_string(shape.window);
      cases.push_back(
          {"tree attention" + what, [=](Device& device, DType dtype) { check_tree(device, dtype, problem); }});
      cases.push_back(
          {"cached attention" + what, [=](Device& device, DType dtype) { check_cached(device, dtype, problem); }});
    }
  }
  const ForestLayout long_prompt = layout_of_nodes({{-1, 300}, {0, 9}, {0, 3}});
  for (const AttentionShape& shape : {AttentionShape{8, 2, 64, 0}, AttentionShape{6, 1, 24, 140}}) {
    const Problem problem = random_problem(random, long_prompt, shape);
    cases.push_back({"cached attention to a long prompt, C=" + std::to_string(shape.head_dim),
                     [=](Device& device, DType dtype) { check_cached(device, dtype, problem); }});
  }
  // Several tiles of queries and keys, some of which every query sees whole.
  const ForestLayout tiles = layout_of_nodes({{-1, 150}, {0, 70}, {0, 40}, {2, 30}, {2, 3}, {-1, 20}});
  for (const AttentionShape& shape :
       {AttentionShape{4, 2, 64, 0}, {2, 1, 96, 0}, {2, 1, 128, 0}, {2, 2, 64, 100}, {2, 1, 64, 9}}) {
    const Problem problem = random_problem(random, tiles, shape);
    cases.push_back(
        {"tree attention of many tiles C=" + std::to_string(shape.head_dim) + " window=" + std::to_string(shape.window),
         [=](Device& device, DType dtype) { check_tree(device, dtype, problem); }});
  }
  // Trees one after another, each of a prompt and two answers, of lengths that tiles know nothing of; groups of heads.
  const ForestLayout trees = layout_of_nodes(
      {{-1, 75}, {0, 130}, {0, 65}, {-1, 33}, {3, 1}, {3, 40}, {-1, 128}, {6, 64}, {6, 63}, {-1, 1}, {9, 200}, {9, 2}});
  for (const AttentionShape& shape :
       {AttentionShape{8, 1, 64, 0}, {3, 3, 64, 70}, {5, 1, 128, 0}, {4, 2, 128, 130}, {4, 1, 96, 0}}) {
    const Problem problem = random_problem(random, trees, shape);
    cases.push_back({"tree attention of many tiles and trees C=" + std::to_string(shape.head_dim) +
                         " window=" + std::to_string(shape.window),
                     [=](Device& device, DType dtype) { check_tree(device, dtype, problem); }});
  }
  cases.push_back({"tree attention of large scores", check_large_scores});
  return cases;
}

}  // namespace tempora::test
