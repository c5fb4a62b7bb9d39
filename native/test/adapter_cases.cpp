// An adapter is its merged weights, its gradients are derivatives, and rows keep their own adapters.
#include <cmath>

#include "adapter_support.h"
#include "engine_cases.h"
#include "engine_support.h"

namespace tempora::test {
namespace {

constexpr std::uint64_t kSeed = 5;

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

std::vector<float> coefficients_of(const Forest& forest) {
  Random random(91);
  std::vector<float> coefficients;
  for (std::size_t i = 0; i < forest.tokens.size(); ++i) coefficients.push_back(static_cast<float>(random.normal()));
  return coefficients;
}

double norm(const std::vector<double>& x) { return std::sqrt(dot(x, x)); }

std::vector<std::vector<double>> gradients_of(const Engine& engine, int adapter) {
  std::vector<std::vector<double>> gradients;
  for (int i = 0; i < engine.parameter_count(adapter); ++i) {
    gradients.push_back(doubles(engine.get_gradient(i, adapter)));
  }
  return gradients;
}

std::vector<std::vector<std::uint8_t>> weights_of(const Engine& engine, int adapter) {
  std::vector<std::vector<std::uint8_t>> weights;
  for (int i = 0; i < engine.parameter_count(adapter); ++i) weights.push_back(engine.get_parameter(i, adapter));
  return weights;
}

void check_merging(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  Forest forest = branching_forest(model.shape.vocab_size, 3);
  const auto base = engine->log_probs(forest, 0, nullptr).token;
  const auto base_weights = weights_of(*engine, Engine::kBase);
  const int empty = engine->add_adapter(spec_of(*engine, model.shape, true, 0));
  set_tensors(*engine, empty, 1, 0);
  const int adapter = add_random(*engine, model.shape, 2, 0, false);
  forest.root_adapter = {empty, empty};
  expect(engine->log_probs(forest, 0, nullptr).token == base, "an adapter whose B is zero changes log-probs");
  forest.root_adapter = {adapter, adapter};
  const auto with = engine->log_probs(forest, 0, nullptr).token;
  forest.root_adapter = {};
  expect(engine->log_probs(forest, 0, nullptr).token == base, "an adapter that is not active changes log-probs");
  engine->activate_adapter(adapter);
  expect(engine->log_probs(forest, 0, nullptr).token == with, "the active adapter is not the one that rows go through");
  engine->activate_adapter(Engine::kBase);

  engine->merge_adapter(adapter);
  expect_close("log-probs", doubles(engine->log_probs(forest, 0, nullptr).token), doubles(with),
               dtype == DType::f32 ? 1e-5 : 0.05);
  expect(engine->log_probs(forest, 0, nullptr).token != base, "the adapter was not merged");
  engine->unmerge_adapter(adapter);
  expect(weights_of(*engine, Engine::kBase) == base_weights, "unmerging left other weights");
  expect(engine->log_probs(forest, 0, nullptr).token == base, "unmerging left something behind");
}

double weighted_sum(Engine& engine, const Forest& forest, const std::vector<float>& coefficients) {
  return dot(doubles(engine.log_probs(forest, 0, nullptr).token), doubles(coefficients));
}

void check_derivatives(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const int adapter = add_random(*engine, model.shape, 2);
  engine->activate_adapter(adapter);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = coefficients_of(forest);
  engine->accumulate(forest, coefficients, false, nullptr);
  for (int i = 0; i < engine->parameter_count(); ++i) {
    expect(norm(doubles(engine->get_gradient(i))) == 0, "the frozen base has gradients");
  }
  const auto gradients = gradients_of(*engine, adapter);
  for (int t = 0; t < engine->parameter_count(adapter); ++t) {
    const std::vector<std::uint8_t> bytes = engine->get_parameter(t, adapter);
    const auto* values = reinterpret_cast<const float*>(bytes.data());
    const double size = norm(gradients[t]);
    expect(size > 1e-4, "tensor " + std::to_string(t) + " has no gradient");
    double sums[2];
    const double step = 2e-3;
    for (const int side : {0, 1}) {
      std::vector<float> moved(values, values + bytes.size() / 4);
      for (std::size_t j = 0; j < moved.size(); ++j) {
        moved[j] += static_cast<float>((side == 0 ? step : -step) * gradients[t][j] / size);
      }
      engine->set_parameter(t, DType::f32, reinterpret_cast<const std::uint8_t*>(moved.data()), bytes.size(), adapter);
      sums[side] = weighted_sum(*engine, forest, coefficients);
    }
    engine->set_parameter(t, DType::f32, bytes.data(), bytes.size(), adapter);
    const double slope = (sums[0] - sums[1]) / (2 * step);
    expect(std::abs(slope - size) <= 5e-3 * size + 5e-3, "tensor " + std::to_string(t) + ": the slope is " +
                                                             std::to_string(slope) + ", the gradient says " +
                                                             std::to_string(size));
  }
}

// Three trees, each through an adapter of its own or none: as three forests.
Forest three_trees(std::int64_t vocab, const std::vector<std::int32_t>& adapters) {
  Forest forest;
  forest.node_start.push_back(0);
  for (std::size_t tree = 0; tree < adapters.size(); ++tree) {
    const auto root = static_cast<std::int32_t>(forest.node_parent.size());
    Random random(70);  // the same tokens in every tree
    for (const auto& [parent, length] : {std::pair{-1, 9}, std::pair{root, 4}, std::pair{root, 6}}) {
      for (const std::int32_t token : random.tokens(length, vocab)) forest.tokens.push_back(token);
      forest.node_start.push_back(static_cast<std::int32_t>(forest.tokens.size()));
      forest.node_parent.push_back(parent);
      forest.node_scored.push_back(parent < 0 ? 0 : 1);
    }
  }
  forest.root_adapter = adapters;
  return forest;
}

struct Generated {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  bool operator==(const Generated&) const = default;
};

// Two samples of each tree's second node, by tree.
std::vector<Generated> generate(Engine& engine, const Forest& forest) {
  GenerationRequest request;
  request.forest = forest;
  for (std::size_t tree = 0; tree < forest.root_adapter.size(); ++tree) {
    request.leaves.push_back(static_cast<std::int32_t>(3 * tree + 1));
    request.samples.push_back(2);
    request.prompt_keys.push_back(8);
    request.seeds.push_back(4);
  }
  request.options.max_new_tokens = 7;
  request.options.max_rows = 16;
  request.options.max_cache_tokens = 4096;
  const auto generation = engine.start_generation(std::move(request));
  std::vector<Generated> trees(forest.root_adapter.size());
  std::vector<Generated> rows(2 * trees.size());
  for (bool done = false; !done;) {
    const GenerationStep step = generation->step(1, nullptr);
    for (std::size_t i = 0; i < step.rows.size(); ++i) {
      rows[step.rows[i]].tokens.push_back(step.tokens[i]);
      rows[step.rows[i]].log_probs.push_back(step.log_probs[i]);
    }
    done = step.done;
  }
  for (std::size_t row = 0; row < rows.size(); ++row) {
    Generated& tree = trees[row / 2];
    tree.tokens.insert(tree.tokens.end(), rows[row].tokens.begin(), rows[row].tokens.end());
    tree.log_probs.insert(tree.log_probs.end(), rows[row].log_probs.begin(), rows[row].log_probs.end());
  }
  return trees;
}

void check_mixed_forest(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const int first = add_random(*engine, model.shape, 2), second = add_random(*engine, model.shape, 3, 0, false);
  const std::vector<std::int32_t> adapters = {first, second, Engine::kBase};
  const Forest together = three_trees(model.shape.vocab_size, adapters);
  const auto log_probs = engine->log_probs(together, 0, nullptr).token;
  const auto generated = generate(*engine, together);
  const std::size_t length = together.tokens.size() / 3;
  for (std::size_t tree = 0; tree < 3; ++tree) {
    const Forest alone = three_trees(model.shape.vocab_size, {adapters[tree]});
    const std::vector<double> part(log_probs.begin() + static_cast<std::ptrdiff_t>(tree * length),
                                   log_probs.begin() + static_cast<std::ptrdiff_t>((tree + 1) * length));
    expect_close("log-probs of tree " + std::to_string(tree), part, doubles(engine->log_probs(alone, 0, nullptr).token),
                 dtype == DType::f32 ? 1e-5 : 0.02);
    expect(generate(*engine, alone)[0] == generated[tree],
           "tree " + std::to_string(tree) + " alone gave other bits than among three");
  }
  expect(!(generated[0] == generated[1]) && !(generated[1] == generated[2]), "adapters make no difference");
}

// Trees of other adapters pass their gradients through, and only the active adapter has some of its own.
void check_mixed_training(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const int first = add_random(*engine, model.shape, 2), second = add_random(*engine, model.shape, 3, 0, false);
  engine->activate_adapter(second);
  const Forest together = three_trees(model.shape.vocab_size, {first, second, Engine::kBase});
  engine->accumulate(together, std::vector<float>(together.tokens.size(), -0.1f), false, nullptr);
  const auto got = gradients_of(*engine, second);
  for (const auto& gradient : gradients_of(*engine, first))
    expect(norm(gradient) == 0, "a frozen adapter has gradients");
  engine->zero_gradients();
  const Forest alone = three_trees(model.shape.vocab_size, {second});
  engine->accumulate(alone, std::vector<float>(alone.tokens.size(), -0.1f), false, nullptr);
  const auto want = gradients_of(*engine, second);
  for (std::size_t t = 0; t < want.size(); ++t) expect_close("gradient", got[t], want[t], 1e-4);
}

// Sizes that large products take, with an adapter's part in them.
TinyModel wide_model(TinyModel model) {
  model.shape.hidden_size = 64;
  model.shape.intermediate_size = 96;
  model.shape.heads = 8;
  model.shape.kv_heads = 8;
  return model;
}

std::vector<std::vector<double>> trained_gradients(Engine& engine, const Forest& forest, int adapter,
                                                   bool checkpointing) {
  engine.zero_gradients();
  engine.set_optimizer_steps(0);
  engine.activate_adapter(adapter);
  engine.accumulate(forest, coefficients_of(forest), checkpointing, nullptr);
  return gradients_of(engine, adapter);
}

// Rounded to bf16 on the way, they are near each other as a whole.
void expect_near(const std::string& name, const std::vector<std::vector<double>>& got,
                 const std::vector<std::vector<double>>& want) {
  double off = 0, all = 0;
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (std::size_t i = 0; i < want[t].size(); ++i) off += (got[t][i] - want[t][i]) * (got[t][i] - want[t][i]);
    all += norm(want[t]) * norm(want[t]);
  }
  const double share = std::sqrt(off / all);
  expect(share < 0.1, name + " is off by " + std::to_string(share) + " of its norm");
}

void check_wide(const TinyModel& model) {
  const auto engine = random_engine(model, DType::bf16, kSeed, 1, 0.1),
             exact = random_engine(model, DType::f32, kSeed, 1, 0.1);
  for (const float dropout : {0.0f, 0.3f}) {
    const int adapter = add_random(*engine, model.shape, 2, dropout),
              same = add_random(*exact, model.shape, 2, dropout);
    Forest forest = branching_forest(model.shape.vocab_size, 3);
    const auto got = trained_gradients(*engine, forest, adapter, false);
    expect(trained_gradients(*engine, forest, adapter, true) == got, "checkpointing changed gradients");
    const auto want = trained_gradients(*exact, forest, same, false);
    expect_near("gradient", got, want);
    // Behind the last block's attention all rows are those of one adapter, before it they are not.
    forest.root_adapter = {adapter, Engine::kBase};
    for (std::size_t node = 9; node < forest.node_scored.size(); ++node) forest.node_scored[node] = 0;
    const auto mixed = trained_gradients(*engine, forest, adapter, false);
    forest.root_adapter = {same, Engine::kBase};
    const auto mixed_want = trained_gradients(*exact, forest, same, false);
    expect_near("gradient of one tree", mixed, mixed_want);
    for (Engine* each : {engine.get(), exact.get()}) each->activate_adapter(Engine::kBase);
  }
}

void check_dropout(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const int adapter = add_random(*engine, model.shape, 2, 0.3f);
  engine->activate_adapter(adapter);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = coefficients_of(forest);
  const auto kept = engine->accumulate(forest, coefficients, false, nullptr).token;
  const auto gradients = gradients_of(*engine, adapter);
  expect(kept != engine->log_probs(forest, 0, nullptr).token, "nothing was dropped");
  expect(kept != engine->accumulate(forest, coefficients, false, nullptr).token, "two calls drop the same elements");
  engine->zero_gradients();
  expect(engine->accumulate(forest, coefficients, true, nullptr).token == kept, "checkpointing drops other elements");
  expect(gradients_of(*engine, adapter) == gradients, "checkpointing changed gradients");
  engine->zero_gradients();
  engine->set_optimizer_steps(3);
  expect(engine->accumulate(forest, coefficients, false, nullptr).token != kept, "two steps drop the same elements");
  engine->zero_gradients();
  engine->set_optimizer_steps(0);
  expect(engine->accumulate(forest, coefficients, false, nullptr).token == kept, "a resumed step drops other elements");
}

void check_training(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const int other = add_random(*engine, model.shape, 3);
  const int adapter = engine->add_adapter(spec_of(*engine, model.shape, true, 0));
  set_tensors(*engine, adapter, 2, 0);
  engine->activate_adapter(adapter);
  const auto base = weights_of(*engine, Engine::kBase), others = weights_of(*engine, other);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients(forest.tokens.size(), -1.0f / 40);
  const double before = weighted_sum(*engine, forest, coefficients);
  OptimizerOptions options;
  options.learning_rate = 3e-2;
  options.max_grad_norm = 1;
  for (int step = 0; step < 60; ++step) {
    engine->accumulate(forest, coefficients, step % 2 == 0, nullptr);
    engine->optimizer_step(options);
  }
  const double after = weighted_sum(*engine, forest, coefficients);
  expect(after < before / 2, "the loss went from " + std::to_string(before) + " to " + std::to_string(after));
  expect(weights_of(*engine, Engine::kBase) == base && weights_of(*engine, other) == others,
         "training an adapter changed other weights");
  std::size_t numbers = 0;
  for (int t = 0; t < engine->parameter_count(adapter); ++t) numbers += engine->parameter_bytes(t, adapter) / 4;
  const MemoryReport memory = engine->memory();
  expect(memory.gradients < numbers * 4 + 64 * 1024 && memory.optimizer < numbers * 8 + 64 * 1024,
         "the frozen weights have gradients or moments");
}

// Any other backend against the CPU's.
void check_equals_cpu(const TinyModel& model) {
  TinyModel on_cpu = model;
  on_cpu.cuda = false;
  const auto want = random_engine(on_cpu, DType::f32, kSeed), engine = random_engine(model, DType::f32, kSeed);
  const int adapter = add_random(*want, model.shape, 2, 0.2f);
  expect(add_random(*engine, model.shape, 2, 0.2f) == adapter, "adapters are numbered differently");
  want->activate_adapter(adapter);
  engine->activate_adapter(adapter);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = coefficients_of(forest);
  OptimizerOptions options;
  options.learning_rate = 1e-2;
  for (int step = 0; step < 2; ++step) {
    const auto expected = want->accumulate(forest, coefficients, false, nullptr).token;
    expect_close("log-probs", doubles(engine->accumulate(forest, coefficients, false, nullptr).token),
                 doubles(expected), 2e-4);
    const auto expected_gradients = gradients_of(*want, adapter), got = gradients_of(*engine, adapter);
    for (std::size_t t = 0; t < got.size(); ++t) {
      std::vector<double> difference = got[t];
      for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= expected_gradients[t][i];
      const double off = norm(difference) / norm(expected_gradients[t]);
      expect(off < 1e-3, "the gradient of tensor " + std::to_string(t) + " is off by " + std::to_string(off));
    }
    want->optimizer_step(options);
    engine->optimizer_step(options);
  }
}

// An engine over quantised weights computes what one over the numbers they stand for computes.
void check_quantised(const TinyModel& model, DType dtype) {
  const auto plain = random_engine(model, dtype, kSeed);
  EngineOptions options;
  options.cuda = model.cuda;
  options.dtype = dtype;
  options.threads = 2;
  options.quantised = WeightFormat::nf4;
  Engine engine(model.shape, options);
  for (int i = 0; i < engine.parameter_count(); ++i) {
    const std::vector<std::uint8_t> numbers = plain->get_parameter(i);
    engine.set_parameter(i, dtype, numbers.data(), numbers.size());
    const std::vector<std::uint8_t> stood_for = engine.get_parameter(i);
    plain->set_parameter(i, dtype, stood_for.data(), stood_for.size());
  }
  Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = coefficients_of(forest);
  const double tolerance = dtype == DType::f32 ? 1e-5 : 0.02;
  expect_close("log-probs", doubles(engine.log_probs(forest, 0, nullptr).token),
               doubles(plain->log_probs(forest, 0, nullptr).token), tolerance);
  for (Engine* each : {plain.get(), &engine}) {
    each->activate_adapter(add_random(*each, model.shape, 2));
    each->accumulate(forest, coefficients, false, nullptr);
  }
  const auto got = gradients_of(engine, 0), want = gradients_of(*plain, 0);
  for (std::size_t t = 0; t < want.size(); ++t) {
    std::vector<double> difference = got[t];
    for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= want[t][i];
    expect(norm(difference) <= (dtype == DType::f32 ? 1e-4 : 0.1) * norm(want[t]),
           "the gradient of tensor " + std::to_string(t) + " is another");
  }
  const Forest trees = three_trees(model.shape.vocab_size, {0, Engine::kBase});
  const auto quantised_samples = generate(engine, trees), samples = generate(*plain, trees);
  for (std::size_t tree = 0; tree < samples.size(); ++tree) {
    if (dtype == DType::f32) {
      expect_close("sampled log-probs", doubles(quantised_samples[tree].log_probs), doubles(samples[tree].log_probs),
                   1e-4);
    }
  }
  engine.activate_adapter(Engine::kBase);
  bool refused = false;
  try {
    engine.accumulate(forest, coefficients, false, nullptr);
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  expect(refused, "quantised weights were trained");
}

void check_refusals(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const auto refused = [&](const std::string& what, const std::function<void()>& call) {
    try {
      call();
    } catch (const std::logic_error&) {
      return;
    }
    throw TestFailure(what + " was taken");
  };
  const int adapter = engine->add_adapter(spec_of(*engine, model.shape, true, 0));
  refused("an adapter without numbers", [&] { engine->activate_adapter(adapter); });
  set_tensors(*engine, adapter, 2, 0.1);
  refused("an adapter of the embedding", [&] { engine->add_adapter({{{0, 2, 1}}, 0, 0}); });
  refused("an adapter of a norm", [&] { engine->add_adapter({{{1, 2, 1}}, 0, 0}); });
  refused("an adapter that names a matrix twice", [&] { engine->add_adapter({{{2, 2, 1}, {2, 3, 1}}, 0, 0}); });
  refused("a rank of 0", [&] { engine->add_adapter({{{2, 0, 1}}, 0, 0}); });
  refused("an unknown adapter", [&] { engine->activate_adapter(9); });
  Forest forest = branching_forest(model.shape.vocab_size, 3);
  forest.root_adapter = {adapter};
  refused("one adapter for two trees", [&] { engine->log_probs(forest, 0, nullptr); });
  forest.root_adapter = {adapter, Engine::kBase};
  engine->merge_adapter(adapter);
  refused("a merged adapter in a forest", [&] { engine->log_probs(forest, 0, nullptr); });
  engine->unmerge_adapter(adapter);
  refused("unmerging twice", [&] { engine->unmerge_adapter(adapter); });
  engine->remove_adapter(adapter);
  refused("a removed adapter", [&] { engine->log_probs(forest, 0, nullptr); });
}

}  // namespace

void run_adapter_cases(TestRun& run, const EngineCases& cases) {
  std::vector<TinyModel> models = tiny_models();
  for (TinyModel& model : models) model.cuda = cases.cuda;
  for (const TinyModel& model : models) {
    const std::string name = model.name + ", adapters: ";
    if (cases.many_passes) run.run(name + "gradients are derivatives", [&] { check_derivatives(model); });
    if (cases.against_cpu) run.run(name + "it computes what the CPU does", [&] { check_equals_cpu(model); });
    run.run(name + "each tree keeps its own", [&] { check_mixed_forest(model, DType::f32); });
    run.run(name + "each tree keeps its own in bf16", [&] { check_mixed_forest(model, DType::bf16); });
  }
  for (const TinyModel* model : {&models[0], &models[2]}) {
    run.run(model->name + ", adapters: merged, they compute the same", [&] { check_merging(*model, DType::f32); });
    run.run(model->name + ", adapters: merged in bf16", [&] { check_merging(*model, DType::bf16); });
    run.run(model->name + ", adapters: one is trained among others", [&] { check_mixed_training(*model); });
  }
  run.run("adapters: wide products in bf16 are near f32", [&] { check_wide(wide_model(models[0])); });
  run.run("adapters: dropout is counted by steps and calls", [&] { check_dropout(models[0], DType::f32); });
  run.run("adapters: dropout in bf16", [&] { check_dropout(models[0], DType::bf16); });
  run.run("adapters over quantised weights", [&] { check_quantised(models[0], DType::f32); });
  run.run("adapters over quantised weights in bf16", [&] { check_quantised(models[3], DType::bf16); });
  run.run("adapters: what cannot be is refused", [&] { check_refusals(models[0]); });
  if (!cases.many_passes) return;
  run.run("adapters: training one lowers the loss", [&] { check_training(models[0], DType::f32); });
  run.run("adapters: training one on a bf16 base lowers the loss", [&] { check_training(models[0], DType::bf16); });
}

}  // namespace tempora::test
