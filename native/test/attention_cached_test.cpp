// Attention over the paged cache: equal to tree attention on the same paths, and blind to the rest of the batch and to
// how the paths are cut into segments.
#include <algorithm>
#include <map>
#include <numeric>

#include "attention_reference.h"
#include "engine/kv_cache.h"
#include "test_support.h"

namespace tempora::attention_test {
namespace {

// A forest's keys and values in a cache, each node in pages of its own, in random order.
class CachedForest {
 public:
  CachedForest(Backend& backend, const Problem& problem, DType dtype, std::uint64_t seed)
      : backend_(backend), problem_(problem), dtype_(dtype) {
    const ForestLayout& layout = problem.layout;
    std::int32_t pages = 0;
    for (std::int32_t node = 0; node < layout.nodes; ++node) {
      pages += static_cast<std::int32_t>(pages_for(layout.node_length(node)));
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(pages) + 5);
    std::iota(order.begin(), order.end(), 0);
    Random random(seed);
    std::shuffle(order.begin(), order.end(), random);
    const std::size_t bytes = backend.cache_bytes(pages + 5, problem.shape, dtype);
    keys_.assign(bytes, 0xFF);  // NaN
    values_.assign(bytes, 0xFF);
    std::vector<std::int32_t> slots(static_cast<std::size_t>(layout.tokens));
    for (std::int32_t node = 0; node < layout.nodes; ++node) {
      CachedTokens tokens;
      tokens.length = layout.node_length(node);
      for (std::int64_t i = 0; i < pages_for(tokens.length); ++i) {
        tokens.pages.push_back(order.back());
        order.pop_back();
      }
      for (std::int32_t i = 0; i < tokens.length; ++i) slots[layout.node_start[node] + i] = tokens.slot(i);
      nodes_.push_back(std::move(tokens));
    }
    const std::int64_t cols = static_cast<std::int64_t>(problem.shape.kv_heads) * problem.shape.head_dim;
    HostMatrix k(dtype, layout.tokens, cols, problem.k), v(dtype, layout.tokens, cols, problem.v);
    backend.write_cache(k.view(), v.view(), slots.data(), problem.shape, keys_.data(), values_.data());
  }

  // The bytes of `out` of each of the tokens; groups[i] is the group number of tokens[i].
  std::vector<std::vector<std::uint8_t>> attend(const std::vector<std::int32_t>& tokens,
                                                const std::vector<std::int32_t>& groups) {
    const ForestLayout& layout = problem_.layout;
    const std::int64_t cols = static_cast<std::int64_t>(problem_.shape.heads) * problem_.shape.head_dim;
    PathBuilder builder;
    std::vector<double> queries;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const std::int32_t token = tokens[i], own = node_of(token);
      builder.begin_row(layout.position[token], groups[i]);
      for (const std::int32_t node : layout.path(own)) {
        builder.add_segment(nodes_[node], node == own ? token - layout.node_start[own] + 1 : nodes_[node].length);
      }
      queries.insert(queries.end(), problem_.q.begin() + token * cols, problem_.q.begin() + (token + 1) * cols);
    }
    const auto rows = static_cast<std::int64_t>(tokens.size());
    HostMatrix q(dtype_, rows, cols, queries), out(dtype_, rows, cols);
    const auto plan = backend_.plan_cache(builder.take());
    backend_.cached_attention(*plan, problem_.shape, q.view(), keys_.data(), values_.data(), out.view());
    std::vector<std::vector<std::uint8_t>> result;
    const std::size_t size = out.bytes.size() / tokens.size();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      result.emplace_back(out.bytes.begin() + static_cast<std::ptrdiff_t>(i * size),
                          out.bytes.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
    }
    return result;
  }

  std::int32_t node_of(std::int32_t token) const {
    const auto& start = problem_.layout.node_start;
    return static_cast<std::int32_t>(std::upper_bound(start.begin(), start.end(), token) - start.begin()) - 1;
  }

 private:
  Backend& backend_;
  const Problem& problem_;
  DType dtype_;
  std::vector<std::uint8_t> keys_, values_;
  std::vector<CachedTokens> nodes_;
};

// All tokens, ordered so that those of one node and of siblings share a group, as a prefill and samples of one prompt
// do.
struct Batch {
  std::vector<std::int32_t> tokens, groups;
};

Batch by_parents(const CachedForest& cache, const ForestLayout& layout) {
  std::map<std::int32_t, std::vector<std::int32_t>> groups;  // by parent; roots have one each
  for (std::int32_t token = 0; token < layout.tokens; ++token) {
    const std::int32_t node = cache.node_of(token), parent = layout.node_parent[node];
    groups[parent < 0 ? -1 - node : parent].push_back(token);
  }
  Batch batch;
  std::int32_t number = 0;
  for (const auto& [parent, tokens] : groups) {
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
    batch.groups.insert(batch.groups.end(), tokens.size(), number++);
  }
  return batch;
}

std::vector<double> values_of(const std::vector<std::vector<std::uint8_t>>& rows, DType dtype) {
  HostMatrix matrix(dtype, 0, 0);
  for (const auto& row : rows) matrix.bytes.insert(matrix.bytes.end(), row.begin(), row.end());
  matrix.rows = 1;
  matrix.cols = static_cast<std::int64_t>(matrix.bytes.size() / size_of(dtype));
  return matrix.values();
}

constexpr AttentionShape kShapes[] = {{9, 3, 64, 0}, {2, 2, 24, 0},    {4, 1, 80, 45}, {6, 2, 18, 1},
                                      {4, 4, 16, 7}, {4, 2, 128, 130}, {8, 1, 96, 0},  {3, 1, 7, 0}};

void equals_tree_attention() {
  Random random(11);
  std::vector<ForestLayout> layouts{layout_of_nodes({{-1, 300}, {0, 170}, {0, 1}, {0, 33}, {1, 129}}),
                                    layout_of_nodes({{-1, 1}, {0, 16}, {1, 17}, {2, 128}, {2, 15}})};
  for (int i = 0; i < 3; ++i) layouts.push_back(random_forest(random, 2, 9, 50));
  for (const ForestLayout& layout : layouts) {
    for (const AttentionShape& shape : kShapes) {
      const Problem problem = random_problem(random, layout, shape);
      const Solution expected = solve(problem, false);
      for_each_isa([&](const std::string& isa) {
        const auto backend = make_cpu_backend(2);
        for (const DType dtype : {DType::f32, DType::bf16}) {
          CachedForest cache(*backend, problem, dtype, 1);
          const Batch batch = by_parents(cache, layout);
          const auto rows = cache.attend(batch.tokens, batch.groups);
          std::vector<std::vector<std::uint8_t>> ordered(rows.size());
          for (std::size_t i = 0; i < rows.size(); ++i) ordered[batch.tokens[i]] = rows[i];
          const auto out = values_of(ordered, dtype);
          const Run tree = run_tree_attention(*backend, problem, dtype);
          const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-2;
          const std::string what = isa + (dtype == DType::f32 ? " f32" : " bf16") +
                                   " C=" + std::to_string(shape.head_dim) + " window=" + std::to_string(shape.window);
          test::expect(worst_error(out, expected.out) < tolerance,
                       what + " against the definition: " + std::to_string(worst_error(out, expected.out)));
          test::expect(worst_error(out, tree.solution.out) < tolerance, what + " against tree attention");
        }
      });
    }
  }
}

// A row's bits in batches of other compositions, orders, groupings, pages and numbers of threads.
void rows_are_blind_to_the_batch() {
  Random random(12);
  const ForestLayout layout = layout_of_nodes({{-1, 150}, {0, 20}, {0, 140}, {0, 1}, {0, 35}, {2, 9}, {-1, 40}});
  for (const AttentionShape& shape : kShapes) {
    const Problem problem = random_problem(random, layout, shape);
    for_each_isa([&](const std::string& isa) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const std::string what = isa + " C=" + std::to_string(shape.head_dim) + ": ";
        const auto backend = make_cpu_backend(1);
        CachedForest cache(*backend, problem, dtype, 1);
        std::vector<std::vector<std::uint8_t>> alone;
        for (std::int32_t token = 0; token < layout.tokens; ++token) {
          alone.push_back(cache.attend({token}, {0}).front());
        }
        const auto same = [&](CachedForest& other, const Batch& batch, const char* how) {
          const auto rows = other.attend(batch.tokens, batch.groups);
          bool equal = true;
          for (std::size_t i = 0; i < rows.size(); ++i) equal = equal && rows[i] == alone[batch.tokens[i]];
          test::expect(equal, what + how);
        };
        const Batch batch = by_parents(cache, layout);
        same(cache, batch, "rows in groups");
        for (const int threads : {2, 5}) {
          const auto another = make_cpu_backend(threads);
          CachedForest elsewhere(*another, problem, dtype, 99);
          same(elsewhere, batch, "rows in groups, other pages and threads");
        }
        Batch apart = batch;
        std::shuffle(apart.tokens.begin(), apart.tokens.end(), random);
        std::iota(apart.groups.begin(), apart.groups.end(), 0);
        same(cache, apart, "rows shuffled, each a group");
        for (int i = 0; i < 5; ++i) {
          Batch some;
          for (std::size_t row = 0; row < batch.tokens.size(); ++row) {
            if (random() % 3 != 0) continue;
            some.tokens.push_back(batch.tokens[row]);
            some.groups.push_back(batch.groups[row]);
          }
          // Within a group any order is allowed.
          for (std::size_t row = 1; row < some.tokens.size(); ++row) {
            if (some.groups[row] == some.groups[row - 1] && random() % 2 == 0) {
              std::swap(some.tokens[row], some.tokens[row - 1]);
            }
          }
          same(cache, some, "some rows, in another order");
        }
      }
    });
  }
}

// One path of `tokens` tokens as a chain of nodes, whose lengths are taken from `lengths` again and again.
ForestLayout chain(std::int32_t tokens, const std::vector<std::int32_t>& lengths) {
  std::vector<std::pair<std::int32_t, std::int32_t>> nodes;
  for (std::int32_t left = tokens; left > 0; left -= nodes.back().second) {
    const auto node = static_cast<std::int32_t>(nodes.size());
    nodes.emplace_back(node - 1, std::min(left, lengths[nodes.size() % lengths.size()]));
  }
  return layout_of_nodes(nodes);
}

// A row's bits where its path is cut otherwise: into single tokens, at the ends of pages and inside them, beside the
// borders of the blocks that the kernels read at once.
void rows_are_blind_to_the_cuts() {
  Random random(13);
  constexpr std::int32_t kTokens = 331;
  std::vector<std::vector<std::int32_t>> cuts{{1},           {kCachePage},          {2 * kCachePage, kCachePage - 1},
                                              {1, 150, 180}, {127, 1, 1, 202},      {128, 203},
                                              {129, 1, 201}, {7, 1, 33, 16, 2, 90}, {kTokens - 1, 1}};
  for (int i = 0; i < 3; ++i) {
    cuts.emplace_back();
    for (int length = 0; length < 20; ++length) cuts.back().push_back(1 + static_cast<std::int32_t>(random() % 60));
  }
  for (const AttentionShape& shape : kShapes) {
    const Problem whole = random_problem(random, chain(kTokens, {kTokens}), shape);
    for_each_isa([&](const std::string& isa) {
      const auto backend = make_cpu_backend(2);
      for (const DType dtype : {DType::f32, DType::bf16}) {
        CachedForest uncut(*backend, whole, dtype, 1);
        const Batch all = by_parents(uncut, whole.layout);
        const auto expected = uncut.attend(all.tokens, all.groups);
        for (const std::vector<std::int32_t>& lengths : cuts) {
          Problem problem = whole;
          problem.layout = chain(kTokens, lengths);
          CachedForest cache(*backend, problem, dtype, 2);
          Batch batch = by_parents(cache, problem.layout);
          const std::string what = isa + (dtype == DType::f32 ? " f32" : " bf16") +
                                   " C=" + std::to_string(shape.head_dim) + " window=" + std::to_string(shape.window) +
                                   ", nodes of " + std::to_string(lengths[0]) + " and so on";
          const auto same = [&](const char* how) {
            const auto rows = cache.attend(batch.tokens, batch.groups);
            for (std::size_t i = 0; i < rows.size(); ++i) {
              test::expect(rows[i] == expected[batch.tokens[i]], what + how + std::to_string(batch.tokens[i]));
            }
          };
          same(", rows of a node together: row ");
          std::iota(batch.groups.begin(), batch.groups.end(), 0);
          same(", each row a group: row ");
        }
      }
    });
  }
}

}  // namespace
}  // namespace tempora::attention_test

int main(int argc, char** argv) {
  using namespace tempora::attention_test;
  tempora::test::TestRun run(argc, argv);
  run.run("cached attention equals tree attention and its definition", equals_tree_attention);
  run.run("a row's bits do not depend on the batch", rows_are_blind_to_the_batch);
  run.run("a row's bits do not depend on how its path is cut into segments", rows_are_blind_to_the_cuts);
  return run.finish();
}
