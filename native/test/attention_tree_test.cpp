// Tree attention, forward and backward, against its definition in f64.
#include <cmath>

#include "attention_reference.h"
#include "test_support.h"

namespace tempora::attention_test {
namespace {

constexpr AttentionShape kShapes[] = {
    {1, 1, 16, 0}, {4, 4, 24, 0},   {9, 3, 64, 0}, {6, 1, 80, 5},
    {2, 2, 96, 1}, {4, 2, 128, 33}, {3, 3, 18, 7}, {8, 2, 6, 2},
};

std::vector<ForestLayout> forests(Random& random) {
  std::vector<std::pair<std::int32_t, std::int32_t>> chain{{-1, 3}}, siblings{{-1, 70}}, interleaved;
  for (int i = 0; i < 90; ++i) chain.emplace_back(i, 1);
  for (int i = 0; i < 70; ++i) siblings.emplace_back(0, 1 + i % 3);
  // Node n belongs to tree n % 3 and hangs on the node of that tree before it or two before it.
  for (int i = 0; i < 30; ++i) interleaved.emplace_back(i < 3 ? -1 : i < 6 || i % 2 == 0 ? i - 3 : i - 6, 1 + i % 11);
  // A block of queries whose first node is a leaf and whose other nodes descend from an earlier block.
  const std::vector<std::pair<std::int32_t, std::int32_t>> mixed{{-1, 60}, {0, 50}, {0, 7},  {1, 9},
                                                                 {2, 1},   {4, 90}, {3, 30}, {1, 64}};
  std::vector<ForestLayout> all{layout_of_nodes({{-1, 1}}), layout_of_nodes({{-1, 200}}), layout_of_nodes(chain),
                                layout_of_nodes(siblings),  layout_of_nodes(interleaved), layout_of_nodes(mixed)};
  for (int i = 0; i < 4; ++i) all.push_back(random_forest(random, 1 + i, 12, 10 << i));
  return all;
}

void check_errors(const Run& run, const Solution& expected, DType dtype, const std::string& what) {
  const auto& [out, lse, gradients] = run.solution;
  const auto close = [&](const std::vector<double>& a, const std::vector<double>& b, const char* name) {
    const double error = dtype == DType::f32 ? worst_error(a, b) : relative_norm(a, b);
    test::expect(error < (dtype == DType::f32 ? 1e-5 : 6e-3), what + " " + name + ": error " + std::to_string(error));
  };
  close(out, expected.out, "out");
  close(gradients.d_q, expected.gradients.d_q, "d_q");
  close(gradients.d_k, expected.gradients.d_k, "d_k");
  close(gradients.d_v, expected.gradients.d_v, "d_v");
  const double error = worst_error(lse, expected.lse);
  test::expect(error < 1e-5, what + " lse: error " + std::to_string(error));
}

void equals_definition() {
  Random random(1);
  for (const ForestLayout& layout : forests(random)) {
    for (const AttentionShape& shape : kShapes) {
      const Problem problem = random_problem(random, layout, shape);
      const Solution expected = solve(problem, true);
      for_each_isa([&](const std::string& isa) {
        const auto backend = make_cpu_backend(2);
        for (const DType dtype : {DType::f32, DType::bf16}) {
          const std::string what = isa + (dtype == DType::f32 ? " f32 T=" : " bf16 T=") +
                                   std::to_string(layout.tokens) + " C=" + std::to_string(shape.head_dim) +
                                   " window=" + std::to_string(shape.window);
          check_errors(run_tree_attention(*backend, problem, dtype), expected, dtype, what);
        }
      });
    }
  }
}

// A window may cut anywhere: through a parent, at a node's border, past everything.
void every_window() {
  Random random(2);
  const ForestLayout layout = random_forest(random, 2, 9, 30);
  for (int window = 1; window < 90; window += 4) {
    const Problem problem = random_problem(random, layout, {4, 2, 16, window});
    const Solution expected = solve(problem, true);
    for_each_isa([&](const std::string& isa) {
      const auto backend = make_cpu_backend(1);
      check_errors(run_tree_attention(*backend, problem, DType::f32), expected, DType::f32,
                   isa + " window=" + std::to_string(window));
    });
  }
}

void definition_has_these_derivatives() {
  Random random(3);
  Problem problem = random_problem(random, random_forest(random, 2, 6, 4), {4, 2, 6, 5});
  const Gradients gradients = solve(problem, true).gradients;
  const std::pair<std::vector<double>*, const std::vector<double>*> all[] = {
      {&problem.q, &gradients.d_q}, {&problem.k, &gradients.d_k}, {&problem.v, &gradients.d_v}};
  for (const auto& [values, derivatives] : all) {
    double worst = 0;
    for (std::size_t i = 0; i < values->size(); i += 7) {
      const double value = (*values)[i], step = 1e-5;
      (*values)[i] = value + step;
      const double above = objective(problem);
      (*values)[i] = value - step;
      const double below = objective(problem);
      (*values)[i] = value;
      worst = std::max(worst, std::abs((above - below) / (2 * step) - (*derivatives)[i]));
    }
    test::expect(worst < 1e-7, "finite differences differ by " + std::to_string(worst));
  }
}

void same_bits_always() {
  Random random(4);
  const ForestLayout layout = random_forest(random, 2, 16, 70);
  for (const AttentionShape& shape : {AttentionShape{9, 3, 64, 0}, AttentionShape{4, 1, 24, 50}}) {
    const Problem problem = random_problem(random, layout, shape);
    for_each_isa([&](const std::string& isa) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const auto expected = run_tree_attention(*make_cpu_backend(1), problem, dtype).bits;
        for (const int threads : {1, 2, 3, 7}) {
          const auto backend = make_cpu_backend(threads);
          for (int repeat = 0; repeat < 3; ++repeat) {
            test::expect(run_tree_attention(*backend, problem, dtype).bits == expected,
                         isa + " same bits on " + std::to_string(threads) + " threads");
          }
        }
      }
    });
  }
}

// Rows of a matrix of the forest, for the tokens of a path.
std::vector<double> rows_of(const std::vector<double>& matrix, std::size_t tokens,
                            const std::vector<std::int32_t>& path) {
  const std::size_t cols = matrix.size() / tokens;
  std::vector<double> rows;
  for (const std::int32_t token : path) {
    rows.insert(rows.end(), matrix.begin() + static_cast<std::ptrdiff_t>(token * cols),
                matrix.begin() + static_cast<std::ptrdiff_t>((token + 1) * cols));
  }
  return rows;
}

void add_rows(std::vector<double>& matrix, std::size_t tokens, const std::vector<std::int32_t>& path,
              const std::vector<double>& rows) {
  const std::size_t cols = matrix.size() / tokens;
  for (std::size_t i = 0; i < rows.size(); ++i) matrix[path[i / cols] * cols + i % cols] += rows[i];
}

// A forest is its paths run one by one, where each node's own d_out counts in one path only.
void forest_equals_its_paths() {
  Random random(5);
  const ForestLayout layout = random_forest(random, 3, 10, 40);
  const auto tokens = static_cast<std::size_t>(layout.tokens);
  const Problem problem = random_problem(random, layout, {6, 2, 32, 37});
  for_each_isa([&](const std::string& isa) {
    const auto backend = make_cpu_backend(2);
    const Solution whole = run_tree_attention(*backend, problem, DType::f32).solution;
    Gradients sums{std::vector<double>(problem.q.size()), std::vector<double>(problem.k.size()),
                   std::vector<double>(problem.v.size())};
    for (std::int32_t node = 0; node < layout.nodes; ++node) {
      std::vector<std::int32_t> path;
      for (const std::int32_t above : layout.path(node)) {
        for (std::int32_t i = layout.node_start[above]; i < layout.node_start[above + 1]; ++i) path.push_back(i);
      }
      Problem alone{layout_of_nodes({{-1, static_cast<std::int32_t>(path.size())}}),
                    problem.shape,
                    rows_of(problem.q, tokens, path),
                    rows_of(problem.k, tokens, path),
                    rows_of(problem.v, tokens, path),
                    rows_of(problem.d_out, tokens, path)};
      const std::size_t own = problem.d_out.size() / tokens * static_cast<std::size_t>(layout.node_length(node));
      std::fill(alone.d_out.begin(), alone.d_out.end() - static_cast<std::ptrdiff_t>(own), 0.0);
      const Solution s = run_tree_attention(*backend, alone, DType::f32).solution;
      test::expect(worst_error(s.out, rows_of(whole.out, tokens, path)) < 1e-5, isa + " path's outputs");
      add_rows(sums.d_q, tokens, path, s.gradients.d_q);
      add_rows(sums.d_k, tokens, path, s.gradients.d_k);
      add_rows(sums.d_v, tokens, path, s.gradients.d_v);
    }
    test::expect(worst_error(whole.gradients.d_q, sums.d_q) < 1e-5, isa + " d_q of the paths");
    test::expect(worst_error(whole.gradients.d_k, sums.d_k) < 1e-5, isa + " d_k summed over the paths");
    test::expect(worst_error(whole.gradients.d_v, sums.d_v) < 1e-5, isa + " d_v summed over the paths");
  });
}

// Scores far apart must neither overflow nor divide by zero.
void survives_large_scores() {
  Random random(6);
  Problem problem = random_problem(random, random_forest(random, 1, 6, 50), {2, 1, 64, 0});
  for (double& value : problem.q) value *= 64;
  const Solution expected = solve(problem, false);
  for_each_isa([&](const std::string& isa) {
    const auto backend = make_cpu_backend(1);
    const Solution s = run_tree_attention(*backend, problem, DType::f32).solution;
    test::expect(worst_error(s.out, expected.out) < 1e-3, isa + " outputs of large scores");
    test::expect(worst_error(s.lse, expected.lse) < 1e-5, isa + " lse of large scores");
  });
}

}  // namespace
}  // namespace tempora::attention_test

int main(int argc, char** argv) {
  using namespace tempora::attention_test;
  tempora::test::TestRun run(argc, argv);
  run.run("the reference has the derivatives of finite differences", definition_has_these_derivatives);
  run.run("tree attention equals its definition, forward and backward", equals_definition);
  run.run("windows cut anywhere", every_window);
  run.run("same bits on repetition and on any number of threads", same_bits_always);
  run.run("a forest equals its paths run one by one", forest_equals_its_paths);
  run.run("scores may be far apart", survives_large_scores);
  return run.finish();
}
