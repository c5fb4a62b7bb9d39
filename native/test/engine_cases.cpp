// A forest is its paths, gradients are derivatives, checkpointing changes nothing.
#include <cmath>

#include "engine_cases.h"
#include "engine_support.h"

namespace tempora::test {
namespace {

constexpr std::uint64_t kSeed = 5;

// Which tokens of the forest have a prediction, and a weight for each of their log-probs.
std::vector<float> random_coefficients(const Forest& forest) {
  Random random(91);
  std::vector<float> coefficients(forest.tokens.size());
  for (std::size_t node = 0; node < forest.node_parent.size(); ++node) {
    for (std::int32_t i = forest.node_start[node]; i < forest.node_start[node + 1]; ++i) {
      const bool first_of_root = forest.node_parent[node] < 0 && i == forest.node_start[node];
      if (forest.node_scored[node] != 0 && !first_of_root) coefficients[i] = static_cast<float>(random.normal());
    }
  }
  return coefficients;
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

std::vector<std::vector<double>> gradients_of(const Engine& engine) {
  std::vector<std::vector<double>> gradients;
  for (int i = 0; i < engine.parameter_count(); ++i) gradients.push_back(doubles(engine.get_gradient(i)));
  return gradients;
}

double norm(const std::vector<double>& x) { return std::sqrt(dot(x, x)); }

void expect_same_gradients(const std::vector<std::vector<double>>& got, const std::vector<std::vector<double>>& want,
                           double tolerance) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    std::vector<double> difference = got[i];
    for (std::size_t j = 0; j < difference.size(); ++j) difference[j] -= want[i][j];
    const double off = norm(difference) / (norm(want[i]) + 1e-12);
    expect(off <= tolerance, "the gradient of parameter " + std::to_string(i) + " is off by " + std::to_string(off));
  }
}

void check_forest_is_its_paths(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const LogProbs together = engine->log_probs(forest, 0, nullptr);
  const std::vector<float> coefficients = random_coefficients(forest);
  std::vector<std::uint8_t> taken(forest.tokens.size());
  for (const Path& path : paths_of(forest)) {
    const LogProbs alone = engine->log_probs(path.forest, 0, nullptr);
    std::vector<float> own(path.token.size());
    std::vector<double> got, want;
    for (std::size_t i = 0; i < path.token.size(); ++i) {
      const std::int32_t token = path.token[i];
      if (coefficients[token] == 0) continue;
      got.push_back(together.token[token]);
      want.push_back(alone.token[i]);
      if (taken[token] != 0) continue;
      taken[token] = 1;
      own[i] = coefficients[token];
    }
    expect_close("log-probs", got, want, 1e-5);
    engine->accumulate(path.forest, own, false, nullptr);
  }
  const auto want = gradients_of(*engine);
  engine->zero_gradients();
  engine->accumulate(forest, coefficients, false, nullptr);
  expect_same_gradients(gradients_of(*engine), want, 1e-5);
}

double weighted_sum(Engine& engine, const Forest& forest, const std::vector<float>& coefficients) {
  return dot(doubles(engine.log_probs(forest, 0, nullptr).token), doubles(coefficients));
}

// Along the gradient, where the derivative is its norm, and along a random direction, for each parameter.
void check_derivatives(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = random_coefficients(forest);
  engine->accumulate(forest, coefficients, false, nullptr);
  const auto gradients = gradients_of(*engine);
  Random random(7);
  for (int i = 0; i < engine->parameter_count(); ++i) {
    const std::vector<float> values = parameter_values(*engine, i);
    const std::vector<double>& gradient = gradients[i];
    const double size = norm(gradient);
    expect(size > 1e-4, "parameter " + std::to_string(i) + " has no gradient");
    for (const bool along : {true, false}) {
      std::vector<double> direction = along ? gradient : random.normals(static_cast<std::int64_t>(gradient.size()));
      const double length = norm(direction);
      for (double& d : direction) d /= length;
      const double step = 2e-3;
      double sums[2];
      for (const int side : {0, 1}) {
        std::vector<float> moved = values;
        for (std::size_t j = 0; j < moved.size(); ++j) {
          moved[j] += static_cast<float>((side == 0 ? step : -step) * direction[j]);
        }
        set_parameter_values(*engine, i, moved);
        sums[side] = weighted_sum(*engine, forest, coefficients);
      }
      set_parameter_values(*engine, i, values);
      const double slope = (sums[0] - sums[1]) / (2 * step), want = dot(gradient, direction);
      expect(std::abs(slope - want) <= 5e-3 * size + 5e-3, "parameter " + std::to_string(i) + ": the slope is " +
                                                               std::to_string(slope) + ", the gradient says " +
                                                               std::to_string(want));
    }
  }
}

void check_checkpointing(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = random_coefficients(forest);
  const LogProbs kept = engine->accumulate(forest, coefficients, false, nullptr);
  const auto want = gradients_of(*engine);
  engine->zero_gradients();
  const LogProbs again = engine->accumulate(forest, coefficients, true, nullptr);
  expect(kept.token == again.token, "checkpointing changed log-probs");
  expect(gradients_of(*engine) == want, "checkpointing changed gradients");
}

// bf16 weights and activations: near the same model in f32.
void check_bf16(const TinyModel& model) {
  const auto exact = random_engine(model, DType::f32, kSeed);
  const auto engine = random_engine(model, DType::bf16, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = random_coefficients(forest);
  const LogProbs want = exact->accumulate(forest, coefficients, false, nullptr);
  const LogProbs got = engine->accumulate(forest, coefficients, false, nullptr);
  expect_close("log-probs", doubles(got.token), doubles(want.token), 0.04);
  expect_same_gradients(gradients_of(*engine), gradients_of(*exact), 0.12);
}

void check_training(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  std::vector<float> coefficients = random_coefficients(forest);
  for (float& c : coefficients) c = c == 0 ? 0 : -1.0f / 40;  // the negative log-likelihood
  const double before = weighted_sum(*engine, forest, coefficients);
  OptimizerOptions options;
  options.learning_rate = 1e-2;
  options.max_grad_norm = 1;
  options.weight_decay = 0.01;
  options.seed = 1;
  for (int step = 0; step < 60; ++step) {
    engine->accumulate(forest, coefficients, step % 2 == 0, nullptr);
    const double gradient_norm = engine->optimizer_step(options);
    expect(std::isfinite(gradient_norm) && gradient_norm > 0, "the gradient norm is no positive number");
  }
  const double after = weighted_sum(*engine, forest, coefficients);
  expect(after < before / 4, "the loss went from " + std::to_string(before) + " to " + std::to_string(after));
}

// Operations that write a gradient may know its squares: the last one's count, whichever that was. Of wide enough
// matrices, and more and fewer tokens than large products are made for.
void check_gradient_norm(TinyModel model, const std::vector<bool>& large) {
  model.shape.hidden_size = 64;
  model.shape.intermediate_size = 96;
  model.shape.heads = 8;
  model.shape.kv_heads = 8;
  const Forest many = branching_forest(model.shape.vocab_size, 3);
  const Forest few = paths_of(many).front().forest;
  expect(many.tokens.size() >= 32 && few.tokens.size() < 32, "the forests are not of such sizes");
  const auto engine = random_engine(model, DType::bf16, kSeed), twin = random_engine(model, DType::bf16, kSeed);
  for (const bool all : large) {
    const Forest& forest = all ? many : few;
    const std::vector<float> coefficients = random_coefficients(forest);
    for (Engine* each : {engine.get(), twin.get()}) each->accumulate(forest, coefficients, false, nullptr);
  }
  double squares = 0;
  for (const auto& gradient : gradients_of(*twin)) squares += norm(gradient) * norm(gradient);
  OptimizerOptions options;
  options.max_grad_norm = 1;
  const double got = engine->optimizer_step(options), want = std::sqrt(squares);
  expect(std::abs(got - want) < 1e-5 * want, "the norm is " + std::to_string(got) + ", not " + std::to_string(want));
  expect(twin->optimizer_step(options) == got, "reading gradients changed their norm's bits");
}

void check_cancelling(const TinyModel& model) {
  const auto engine = random_engine(model, DType::f32, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  engine->accumulate(forest, random_coefficients(forest), false, nullptr);
  CancelFlag cancel;
  cancel.cancel();
  bool cancelled = false;
  try {
    engine->accumulate(forest, random_coefficients(forest), false, &cancel);
  } catch (const Cancelled&) {
    cancelled = true;
  }
  expect(cancelled, "it was not cancelled");
  for (const auto& gradient : gradients_of(*engine)) expect(norm(gradient) == 0, "gradients were left behind");
}

// Any other backend against the CPU's, in f32.
void check_equals_cpu(const TinyModel& model) {
  TinyModel on_cpu = model;
  on_cpu.cuda = false;
  const auto want = random_engine(on_cpu, DType::f32, kSeed), engine = random_engine(model, DType::f32, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<float> coefficients = random_coefficients(forest);
  OptimizerOptions options;
  options.learning_rate = 1e-2;
  options.weight_decay = 0.1;
  for (int step = 0; step < 3; ++step) {
    const LogProbs expected = want->accumulate(forest, coefficients, false, nullptr);
    const LogProbs got = engine->accumulate(forest, coefficients, step == 1, nullptr);
    expect_close("log-probs of step " + std::to_string(step), doubles(got.token), doubles(expected.token), 2e-4);
    expect_same_gradients(gradients_of(*engine), gradients_of(*want), step == 0 ? 1e-5 : 1e-3);
    want->optimizer_step(options);
    engine->optimizer_step(options);
  }
}

struct Batches {
  std::size_t first = 0;  // rows of the first step
  bool gave_way = false;  // whether a row waited after it had begun
};

// Two samples of each leaf, one after the other.
std::vector<std::int32_t> generated(Engine& engine, GenerationRequest request, int new_tokens,
                                    std::int64_t cache_tokens = 4096, Batches* batches = nullptr) {
  const std::vector<std::int32_t> leaves = request.leaves;
  request.samples.assign(leaves.size(), 2);
  request.seeds.assign(leaves.size(), 4);
  request.options.sampling.top_p = 0.9f;
  request.options.max_new_tokens = new_tokens;
  request.options.max_rows = 16;
  request.options.max_cache_tokens = cache_tokens;
  const auto generation = engine.start_generation(std::move(request));
  std::vector<std::vector<std::int32_t>> rows(2 * leaves.size());
  std::size_t going_on = 0;
  for (bool done = false; !done;) {
    const GenerationStep step = generation->step(1, nullptr);
    if (batches != nullptr) {
      if (batches->first == 0) batches->first = step.rows.size();
      batches->gave_way = batches->gave_way || step.rows.size() < going_on;
    }
    going_on = static_cast<std::size_t>(std::count(step.finished.begin(), step.finished.end(), 0));
    for (std::size_t i = 0; i < step.rows.size(); ++i) rows.at(step.rows[i]).push_back(step.tokens[i]);
    done = step.done;
  }
  std::vector<std::int32_t> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

std::vector<std::int32_t> generated(Engine& engine, const Forest& forest, const std::vector<std::int32_t>& leaves) {
  GenerationRequest request;
  request.forest = forest;
  request.leaves = leaves;
  for (const std::int32_t leaf : leaves) request.prompt_keys.push_back(static_cast<std::uint64_t>(leaf));
  return generated(engine, std::move(request), 6);
}

void check_generation(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const Forest forest = branching_forest(model.shape.vocab_size, 3);
  const std::vector<std::int32_t> first = generated(*engine, forest, {2});
  expect(first.size() == 12, "two samples of six tokens are " + std::to_string(first.size()) + " tokens");
  const std::vector<std::int32_t> together = generated(*engine, forest, {2, 4, 12});
  expect(together.size() == 36, "six samples of six tokens are " + std::to_string(together.size()) + " tokens");
  expect(std::equal(first.begin(), first.end(), together.begin()), "samples depend on the rest of the batch");
}

// The tokens of requests that join a batch two steps after each other, in a cache of so many tokens.
std::vector<std::int32_t> batched(Engine& engine, const std::vector<std::vector<std::int32_t>>& prompts,
                                  std::int32_t new_tokens, std::int64_t cache_tokens) {
  const auto batch = engine.start_batch({16, cache_tokens});
  std::vector<std::vector<std::int32_t>> rows(2 * prompts.size());
  std::size_t left = rows.size();
  for (std::size_t step = 0; left > 0; ++step) {
    expect(step < 1000, "the batch comes to no end");
    if (step % 2 == 0 && step / 2 < prompts.size()) {
      LiveRequest request;
      request.number = static_cast<std::int64_t>(step / 2);
      request.prompt = prompts[step / 2];
      request.samples = 2;
      request.prompt_key = step / 2;
      request.seed = 4;
      request.sampling.top_p = 0.9f;
      request.max_new_tokens = new_tokens;
      batch->add(std::move(request));
    }
    const LiveStep made = batch->step(nullptr);
    for (std::size_t i = 0; i < made.tokens.size(); ++i) {
      rows.at(2 * static_cast<std::size_t>(made.requests[i]) + static_cast<std::size_t>(made.samples[i]))
          .push_back(made.tokens[i]);
      if (made.finished[i] != 0) --left;
    }
  }
  std::vector<std::int32_t> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

// Prompts that begin alike, over more than a page, and after four of them one that does not.
std::vector<std::vector<std::int32_t>> related_prompts(std::int32_t vocabulary, std::size_t count) {
  std::vector<std::vector<std::int32_t>> prompts(count);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    const std::size_t common = p == 4 ? 0 : 21;
    for (std::size_t i = 0; i < 21 + 3 * p; ++i) {
      const std::size_t token = i < common ? 7 * i + 3 : 11 * i + 5 * p;
      prompts[p].push_back(static_cast<std::int32_t>(token) % vocabulary);
    }
  }
  return prompts;
}

GenerationRequest request_of(const std::vector<std::vector<std::int32_t>>& prompts) {
  GenerationRequest request;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    request.forest.node_start.push_back(static_cast<std::int32_t>(request.forest.tokens.size()));
    request.forest.tokens.insert(request.forest.tokens.end(), prompts[p].begin(), prompts[p].end());
    request.forest.node_parent.push_back(-1);
    request.forest.node_scored.push_back(0);
    request.leaves.push_back(static_cast<std::int32_t>(p));
    request.prompt_keys.push_back(p);
  }
  request.forest.node_start.push_back(static_cast<std::int32_t>(request.forest.tokens.size()));
  return request;
}

void check_live_batch(const TinyModel& model, DType dtype, std::size_t count, std::int32_t new_tokens) {
  const auto engine = random_engine(model, dtype, kSeed);
  const auto prompts = related_prompts(model.shape.vocab_size, count);
  const std::vector<std::int32_t> apart = generated(*engine, request_of(prompts), new_tokens);
  expect(apart.size() == 2 * count * static_cast<std::size_t>(new_tokens), "the generation lacks tokens");
  expect(batched(*engine, prompts, new_tokens, 4096) == apart, "a batch gives others than a generation does");
  // Rows give way to each other and are computed again.
  expect(batched(*engine, prompts, new_tokens, 112) == apart, "a batch in a small cache gives others");
}

// Each prompt takes two pages of sixteen tokens, and each row may come to three of its own.
void check_small_cache(const TinyModel& model) {
  const auto engine = random_engine(model, DType::bf16, kSeed);
  const GenerationRequest request = request_of(related_prompts(model.shape.vocab_size, 4));
  const std::vector<std::int32_t> want = generated(*engine, request, 40);
  for (const std::int64_t pages : {5, 7, 10, 17}) {
    Batches batches;
    const std::string cache = "in a cache of " + std::to_string(pages) + " pages ";
    expect(generated(*engine, request, 40, pages * 16, &batches) == want, cache + "rows give others");
    if (pages != 10) continue;
    expect(batches.first == 3, cache + std::to_string(batches.first) + " rows begin together, not 3");
    expect(batches.gave_way, cache + "no row gives way");
  }
}

}  // namespace

void run_engine_cases(TestRun& run, const EngineCases& cases) {
  std::vector<TinyModel> models = tiny_models();
  for (TinyModel& model : models) model.cuda = cases.cuda;
  for (const TinyModel& model : models) {
    run.run(model.name + ": a forest is its paths, forward and backward", [&] { check_forest_is_its_paths(model); });
    if (cases.many_passes) run.run(model.name + ": gradients are derivatives", [&] { check_derivatives(model); });
    if (cases.against_cpu) run.run(model.name + ": it computes what the CPU does", [&] { check_equals_cpu(model); });
    run.run(model.name + ": checkpointing changes no bit", [&] { check_checkpointing(model, DType::f32); });
    run.run(model.name + ": checkpointing changes no bit in bf16", [&] { check_checkpointing(model, DType::bf16); });
    run.run(model.name + ": bf16 is near f32", [&] { check_bf16(model); });
    run.run(model.name + ": samples do not depend on the batch", [&] { check_generation(model, DType::bf16); });
    run.run(model.name + ": nor on when they join it", [&] {
      cases.many_passes ? check_live_batch(model, DType::bf16, 5, 20) : check_live_batch(model, DType::bf16, 2, 2);
    });
  }
  run.run("a cancelled call leaves no gradients", [&] { check_cancelling(models[0]); });
  if (!cases.many_passes) return;
  run.run("rows of a generation give way in a small cache and end the same", [&] { check_small_cache(models[0]); });
  run.run("training lowers the loss", [&] { check_training(models[0], DType::f32); });
  for (const bool first : {true, false}) {
    run.run(std::string("the gradients' norm is of all that was added to them, ") + (first ? "more" : "fewer") +
                " tokens first",
            [&] {
              check_gradient_norm(models[1], {first, !first});
            });
  }
  run.run("training in bf16 lowers the loss", [&] { check_training(models[0], DType::bf16); });
}

}  // namespace tempora::test
