#include "loss_trajectory.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "engine_support.h"

namespace tempora::test {
namespace {

constexpr const char* kFile = "native/test/loss_trajectory.txt";  // from the repository's root

const char* name_of(DType dtype) { return dtype == DType::f32 ? "f32" : "bf16"; }

constexpr int kSteps = 30, kBatches = 2, kTrees = 2;

// Heads of 64: those that a GPU's tensor cores take.
TinyModel trained_model() {
  TinyModel model{"trained", {}, false};
  ModelShape& shape = model.shape;
  shape.vocab_size = 61;
  shape.hidden_size = 64;
  shape.intermediate_size = 96;
  shape.layers = 2;
  shape.heads = 2;
  shape.kv_heads = 1;
  shape.head_dim = 64;
  shape.norm_eps = 1e-5f;
  shape.windows = {0, 0};
  for (int i = 0; i < 32; ++i) shape.rotary_frequencies.push_back(1.0f / static_cast<float>(1 + 3 * i));
  shape.max_positions = 64;
  return model;
}

// Prompts with a chosen and a rejected response.
PreferenceStep batch_of(std::uint64_t seed, std::int64_t vocabulary) {
  Random random(seed);
  PreferenceStep step;
  step.forest.node_start.push_back(0);
  const auto add = [&](std::int32_t parent, std::int64_t length) {
    for (const std::int32_t token : random.tokens(length, vocabulary)) step.forest.tokens.push_back(token);
    step.forest.node_start.push_back(static_cast<std::int32_t>(step.forest.tokens.size()));
    step.forest.node_parent.push_back(parent);
    step.forest.node_scored.push_back(parent < 0 ? 0 : 1);
  };
  for (std::int32_t tree = 0; tree < kTrees; ++tree) {
    add(-1, 8 + tree);
    add(3 * tree, 5 + tree);
    add(3 * tree, 7 - tree);
    step.pairs.insert(step.pairs.end(), {3 * tree + 1, 3 * tree + 2});
    step.total_chosen_tokens += kBatches * (5 + tree);
  }
  step.loss.terms = {{LossType::sigmoid, 1}};
  step.total_pairs = kBatches * kTrees;
  return step;
}

}  // namespace

Trajectory run_trajectory(DType dtype, bool cuda, int threads) {
  TinyModel model = trained_model();
  model.cuda = cuda;
  const auto engine = random_engine(model, dtype, 7, threads, 0.1);
  std::vector<PreferenceStep> batches;
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
    PreferenceStep& step = batches.emplace_back(batch_of(50 + batch, model.shape.vocab_size));
    const LogProbs before = engine->log_probs(step.forest, 0, nullptr);
    for (const std::int32_t leaf : step.pairs) step.reference.push_back(before.node[leaf]);
    step.checkpointing = batch % 2 == 1;
  }
  OptimizerOptions options;
  options.learning_rate = 4e-4;
  options.max_grad_norm = 1;
  options.weight_decay = 0.01;
  options.seed = 3;
  Trajectory trajectory;
  for (int step = 0; step < kSteps; ++step) {
    double& loss = trajectory.losses.emplace_back(0);
    for (const PreferenceStep& batch : batches) loss += engine->preference_step(batch, nullptr).loss;
    engine->optimizer_step(options);
  }
  for (const PreferenceStep& batch : batches) {
    const LogProbs after = engine->log_probs(batch.forest, 0, nullptr);
    for (const float log_prob : after.token) {
      if (log_prob != 0) trajectory.log_probs.push_back(log_prob);
    }
  }
  return trajectory;
}

Distance distance_of(const Trajectory& one, const Trajectory& other) {
  expect(one.losses.size() == other.losses.size() && one.log_probs.size() == other.log_probs.size(),
         "trajectories of other numbers of steps or tokens");
  Distance distance;
  for (std::size_t i = 0; i < one.losses.size(); ++i) {
    const double apart = std::abs(one.losses[i] - other.losses[i]) / other.losses[i];
    // No number is larger than a NaN, which stays.
    distance.losses = std::isnan(apart) ? apart : std::max(distance.losses, apart);
  }
  double squares = 0;
  for (std::size_t i = 0; i < one.log_probs.size(); ++i) squares += std::pow(one.log_probs[i] - other.log_probs[i], 2);
  distance.log_probs = std::sqrt(squares / static_cast<double>(one.log_probs.size()));
  return distance;
}

KnownTrajectory known_trajectory(DType dtype) {
  std::ifstream file(kFile);
  KnownTrajectory known;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string type, what;
    words >> type >> what;
    if (type != name_of(dtype)) continue;
    std::vector<double> numbers;
    for (double number; words >> number;) numbers.push_back(number);
    if (what == "losses") known.trajectory.losses = numbers;
    if (what == "log-probs") known.trajectory.log_probs = numbers;
    if (what == "noise") known.noise = {numbers.at(0), numbers.at(1)};
  }
  if (known.trajectory.losses.empty() || known.trajectory.log_probs.empty() || !(known.noise.losses > 0)) {
    throw std::runtime_error(std::string(kFile) + " has no trajectory in " + name_of(dtype) +
                             "; run this from the repository's root");
  }
  return known;
}

void write_known_trajectories(const std::string& path, const KnownTrajectory& f32, const KnownTrajectory& bf16) {
  std::ofstream file(path);
  file << "# Written by native/build-tests/test/loss_trajectory_test --write: see loss_trajectory.h.\n";
  for (const auto& [known, dtype] : {std::pair{&f32, DType::f32}, std::pair{&bf16, DType::bf16}}) {
    const auto write = [&](const char* what, const std::vector<double>& numbers, int digits) {
      file << name_of(dtype) << " " << what;
      file.precision(digits);
      for (const double number : numbers) file << " " << number;
      file << "\n";
    };
    write("losses", known->trajectory.losses, 12);
    write("log-probs", known->trajectory.log_probs, 9);
    write("noise", {known->noise.losses, known->noise.log_probs}, 2);
  }
  if (!file.flush()) throw std::runtime_error(path + " cannot be written");
}

void expect_known_trajectory(const Trajectory& trajectory, DType dtype) {
  const KnownTrajectory known = known_trajectory(dtype);
  const Distance apart = distance_of(trajectory, known.trajectory);
  const auto check = [](const char* what, double distance, double noise) {
    char text[200];
    std::snprintf(text, sizeof text, "%s lie %.2g from the CPU's, where noise comes to %.2g", what, distance, noise);
    expect(distance <= kNoises * noise, text);
  };
  check("losses", apart.losses, known.noise.losses);
  check("log-probs", apart.log_probs, known.noise.log_probs);
}

}  // namespace tempora::test
