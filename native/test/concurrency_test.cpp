// The thread that an engine's calls run on, and engines that work at the same time. `bun run sanitize --threads` runs
// this under the thread sanitizer.
#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "addon/worker_thread.h"
#include "engine_support.h"

namespace tempora::test {
namespace {

using addon::WorkerThread;

constexpr std::uint64_t kSeed = 11;

void check_order() {
  constexpr int kPosters = 4, kTasks = 500;
  WorkerThread worker;
  std::vector<std::pair<int, int>> ran;  // touched by the worker alone until it is joined
  std::vector<std::thread> posters;
  for (int poster = 0; poster < kPosters; ++poster) {
    posters.emplace_back([&worker, &ran, poster] {
      for (int task = 0; task < kTasks; ++task) {
        const auto note = [&ran, poster, task] { ran.emplace_back(poster, task); };
        if (task % 100 == 99) {
          worker.run(note);
        } else {
          worker.post(note);
        }
      }
    });
  }
  for (auto& poster : posters) poster.join();
  worker.stop([&ran] { ran.emplace_back(-1, 0); });
  expect(!worker.post([] {}) && !worker.run([] {}), "a stopped thread took a task");
  worker.join();
  expect(ran.size() == kPosters * kTasks + 1 && ran.back().first == -1, "tasks are missing, or the last was not last");
  std::vector<int> next(kPosters, 0);
  for (const auto& [poster, task] : ran) {
    if (poster >= 0) expect(task == next[static_cast<std::size_t>(poster)]++, "tasks of one thread changed places");
  }
}

void check_run_waits() {
  WorkerThread worker;
  int value = 0;
  for (int i = 1; i <= 200; ++i) {
    worker.run([&value] { ++value; });
    expect(value == i, "run() came back before its task had run");
  }
}

struct Outcome {
  std::vector<double> log_probs;
  std::vector<std::int32_t> tokens;
};

bool operator==(const Outcome& a, const Outcome& b) { return a.log_probs == b.log_probs && a.tokens == b.tokens; }

std::vector<std::int32_t> generated(Engine& engine, const Forest& forest) {
  GenerationRequest request;
  request.forest = forest;
  request.leaves = {2, 4};
  request.samples = {3, 3};
  request.prompt_keys = {2, 4};
  request.seeds = {kSeed, kSeed};
  request.options.max_new_tokens = 6;
  request.options.max_rows = 4;
  request.options.max_cache_tokens = 4096;
  const auto generation = engine.start_generation(std::move(request));
  std::vector<std::int32_t> tokens;
  for (bool done = false; !done;) {
    const GenerationStep step = generation->step(2, nullptr);
    tokens.insert(tokens.end(), step.tokens.begin(), step.tokens.end());
    done = step.done;
  }
  return tokens;
}

// Trains two steps, scores and generates.
Outcome work(Engine& engine, const Forest& forest) {
  const std::vector<float> coefficients(forest.tokens.size(), 0.1f);
  for (int i = 0; i < 2; ++i) {
    engine.accumulate(forest, coefficients, i == 1, nullptr);
    OptimizerOptions options;
    options.learning_rate = 1e-3;
    options.seed = kSeed + static_cast<std::uint64_t>(i);
    engine.optimizer_step(options);
  }
  return {engine.log_probs(forest, 0, nullptr).node, generated(engine, forest)};
}

void check_engines(const TinyModel& model, DType dtype) {
  const Forest forest = branching_forest(model.shape.vocab_size, kSeed);
  const Outcome alone = work(*random_engine(model, dtype, kSeed), forest);
  constexpr int kEngines = 3;
  std::vector<Outcome> outcomes(kEngines);
  {
    std::vector<std::unique_ptr<WorkerThread>> workers;
    for (Outcome& outcome : outcomes) {
      workers.push_back(std::make_unique<WorkerThread>());
      // Made, used and ended on its own thread, as the addon does.
      workers.back()->post([&] { outcome = work(*random_engine(model, dtype, kSeed), forest); });
    }
  }
  for (const Outcome& outcome : outcomes) expect(outcome == alone, "an engine beside others gives other numbers");
}

void check_cancel(const TinyModel& model) {
  const Forest forest = branching_forest(model.shape.vocab_size, kSeed);
  const std::vector<float> coefficients(forest.tokens.size(), 0.1f);
  WorkerThread worker;
  const auto engine = random_engine(model, DType::f32, kSeed);
  const LogProbs before = engine->log_probs(forest, 0, nullptr);
  CancelFlag flag;
  std::atomic<int> calls{0};
  bool cancelled = false;
  worker.post([&] {
    try {
      for (;;) {
        engine->accumulate(forest, coefficients, false, &flag);
        ++calls;
      }
    } catch (const Cancelled&) {
      cancelled = true;
    }
  });
  while (calls < 3) std::this_thread::yield();
  flag.cancel();
  worker.run([] {});
  expect(cancelled, "a cancelled call did not end as one");
  const std::vector<float> gradient = engine->get_gradient(0);
  expect(std::all_of(gradient.begin(), gradient.end(), [](float g) { return g == 0; }),
         "a cancelled call left gradients behind");
  expect(engine->log_probs(forest, 0, nullptr).node == before.node, "the engine gives other numbers after it");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora;
  using namespace tempora::test;
  TestRun run(argc, argv);
  run.run("a worker thread runs what several threads post in their order, and nothing after its end", check_order);
  run.run("a worker thread has run a task when run() comes back", check_run_waits);
  for (const TinyModel& model : tiny_models()) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      run.run(model.name + ": engines at work at the same time give what each gives alone" +
                  (dtype == DType::bf16 ? ", bf16" : ""),
              [&] { check_engines(model, dtype); });
    }
    run.run(model.name + ": a call is cancelled from another thread", [&] { check_cancel(model); });
  }
  return run.finish();
}
