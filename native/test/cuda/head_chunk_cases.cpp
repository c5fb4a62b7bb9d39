#include "head_chunk_cases.h"

#include "../engine_support.h"
#include "backend/cuda/cuda_backend.h"
#include "engine/adapters.h"
#include "engine/scoring.h"

namespace tempora::test {
namespace {

constexpr int kTrees = 5, kPrompt = 3, kAnswer = 4;
constexpr std::int64_t kTreeRows = 1 + 2 * (kAnswer - 1);  // both answers' first tokens share a row

class BudgetedBackend : public CudaBackend {
 public:
  explicit BudgetedBackend(const Budget& budget) : given_(budget) {}
  Budget budget() const override { return given_; }

 private:
  Budget given_;
};

// Σ log_prob² / 2, and what the chunks were.
class SquaresLoss : public ForestLoss {
 public:
  void differentiate(const EdgeList&, std::int64_t begin, std::int64_t end, const std::vector<float>& log_prob,
                     std::vector<float>& coefficient) override {
    ++chunks;
    for (std::int64_t e = begin; e < end; ++e) {
      coefficient[static_cast<std::size_t>(e)] = log_prob[static_cast<std::size_t>(e)];
    }
  }
  int chunks = 0;
};

ModelShape tiny_shape() {
  ModelShape shape = tiny_models().front().shape;
  shape.vocab_size = 64;
  return shape;
}

Forest pairs() {
  Random random(5);
  Forest forest;
  forest.tokens = random.tokens(kTrees * (kPrompt + 2 * kAnswer), tiny_shape().vocab_size);
  forest.node_start.push_back(0);
  for (std::int32_t tree = 0; tree < kTrees; ++tree) {
    for (int node = 0; node < 3; ++node) {
      forest.node_start.push_back(forest.node_start.back() + (node == 0 ? kPrompt : kAnswer));
      forest.node_parent.push_back(node == 0 ? -1 : 3 * tree);
      forest.node_scored.push_back(node == 0 ? 0 : 1);
    }
  }
  return forest;
}

struct Step {
  int chunks = 0;
  std::vector<float> log_prob;
  std::vector<double> gradients;  // of all parameters
};

Step step_with(const Budget& budget, DType dtype) {
  BudgetedBackend backend(budget);
  const ModelShape shape = tiny_shape();
  Parameters parameters(backend, shape, dtype, {}, MomentsFormat::f32);
  for (int i = 0; i < parameters.count(); ++i) {
    Random random(static_cast<std::uint64_t>(i) + 1);
    std::vector<float> values;
    for (const double value : random.normals(parameters.at(i).size(), 0.3)) {
      values.push_back(static_cast<float>(parameters.at(i).decays ? value : 1 + value));
    }
    backend.set_weight(parameters.weight(i), DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()));
  }
  Adapters adapters(backend, parameters);
  Decoder decoder(backend, shape, parameters, adapters);
  Scoring scoring(backend, shape, parameters, decoder);
  SquaresLoss loss;
  Step step;
  step.log_prob = scoring.step(pairs(), Keep::activations, loss, nullptr).log_prob;
  step.chunks = loss.chunks;
  for (int i = 0; i < parameters.count(); ++i) {
    const Matrix gradient = parameters.gradient(i);
    std::vector<float> values(static_cast<std::size_t>(gradient.size()));
    backend.copy_out(values.data(), gradient.data, gradient.bytes());
    step.gradients.insert(step.gradients.end(), values.begin(), values.end());
  }
  return step;
}

void check_chunks(DType dtype) {
  const std::int64_t tree = kTreeRows * tiny_shape().vocab_size * static_cast<std::int64_t>(size_of(dtype));
  const Step whole = step_with({.next_chunk_first = true}, dtype);
  const Step by_trees = step_with({.kept_logits = tree}, dtype);
  const Step next_first = step_with({.kept_logits = 2 * tree, .next_chunk_first = true}, dtype);
  expect(whole.chunks == 1 && by_trees.chunks == kTrees && next_first.chunks == kTrees, "other chunks were asked for");
  const Step again = step_with({.largest_kept_logits = 0}, dtype);
  const Step again_by_trees = step_with({.kept_logits = tree, .largest_kept_logits = 0}, dtype);
  expect(again.chunks == 1 && again_by_trees.chunks == kTrees, "other chunks were asked for where nothing is kept");
  for (const Step* step : {&by_trees, &next_first, &again, &again_by_trees}) {
    expect(step->log_prob == whole.log_prob, "log-probs depend on the chunks");
  }
  expect_close("gradients by trees", by_trees.gradients, whole.gradients, 1e-5);
  expect_close("gradients by trees, nothing kept", again_by_trees.gradients, again.gradients, 1e-5);
  expect(next_first.gradients == by_trees.gradients, "gradients depend on when a chunk's logits are computed");
}

}  // namespace

void run_head_chunk_cases(TestRun& run) {
  run.run("head in chunks of trees", [] { check_chunks(DType::f32); });
  run.run("head in chunks of trees in bf16", [] { check_chunks(DType::bf16); });
}

}  // namespace tempora::test
