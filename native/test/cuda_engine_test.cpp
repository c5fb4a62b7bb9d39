// The engine on a CUDA device: a real one, or, as another build of this file, the emulated one.
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "cuda/head_chunk_cases.h"
#include "cuda/schedule.h"
#include "engine_cases.h"
#include "engine_support.h"
#include "loss_trajectory.h"

namespace {

bool has_cpu_backend() {
  try {
    return tempora::cpu_info().threads > 0;
  } catch (const std::runtime_error&) {
    return false;  // built without it
  }
}

tempora::GenerationRequest three_samples(int tokens) {
  tempora::GenerationRequest request;
  request.forest = {{1, 2, 3}, {0, 3}, {-1}, {0}, {}};
  request.leaves = {0};
  request.samples = {3};
  request.prompt_keys = {1};
  request.seeds = {1};
  request.options.max_new_tokens = tokens;
  request.options.max_rows = 3;
  request.options.max_cache_tokens = 4096;
  return request;
}

// Twelve passes of three rows.
tempora::GenerationStep generated() {
  using namespace tempora;
  test::TinyModel model = test::tiny_models().front();
  model.cuda = true;
  const auto engine = test::random_engine(model, DType::bf16, 5);
  return engine->start_generation(three_samples(12))->step(12, nullptr);
}

// The cases of generation would hold without them.
void check_graphs() {
  using namespace tempora;
  const std::int64_t before = test::graphs_launched();
  generated();
  const std::int64_t launched = test::graphs_launched() - before;
  // The first run of a recording sets up, the second counts; memory finds its place.
  test::expect(launched >= 8, std::to_string(launched) + " of 12 passes were graphs");
}

// Of a Llama whose products have splits: kernels of so many passes of three rows.
std::int64_t kernels_of(int layers, int tokens) {
  using namespace tempora;
  test::TinyModel model = test::tiny_models().front();
  model.cuda = true;
  ModelShape& shape = model.shape;
  shape.hidden_size = 512;
  shape.intermediate_size = 520;
  shape.layers = layers;
  shape.head_dim = 64;
  shape.windows.assign(static_cast<std::size_t>(layers), 0);
  shape.rotary_frequencies.assign(32, 0.1f);
  const auto engine = test::random_engine(model, DType::bf16, 5);
  const std::int64_t before = test::kernels_run();
  engine->start_generation(three_samples(tokens))->step(tokens, nullptr);
  return test::kernels_run() - before;
}

// A step of few rows is bound by them: q, k and v, what lies between them and attention, attention and its parts'
// merging, the output's product, its sum's norm, gate and up, SwiGLU, down, the sum's norm.
void check_kernels() {
  const auto of_passes = [](int layers) { return kernels_of(layers, 12) - kernels_of(layers, 4); };
  const std::int64_t of_layer = of_passes(2) - of_passes(1);
  tempora::test::expect(of_layer == 8 * 10, "a layer of eight passes is " + std::to_string(of_layer) + " kernels");
}

// Each is made, used and ended on a thread of its own, as the addon does. Some record while others allocate.
void check_side_by_side() {
  using namespace tempora;
  constexpr std::size_t kEngines = 3;
  const GenerationStep alone = generated();
  std::vector<GenerationStep> made(kEngines);
  std::vector<std::string> problems(kEngines);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kEngines; ++i) {
    threads.emplace_back([&, i] {
      try {
        made[i] = generated();
      } catch (const std::exception& error) {
        problems[i] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < kEngines; ++i) {
    test::expect(problems[i].empty(), "an engine beside others fails: " + problems[i]);
    test::expect(made[i].tokens == alone.tokens && made[i].log_probs == alone.log_probs,
                 "an engine beside others generates something else");
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tempora;
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) {
    std::printf("no CUDA device: nothing was run (%s)\n", info.problem.c_str());
    return 77;
  }
  std::printf("on %s\n", info.devices.front().c_str());
  test::TestRun run(argc, argv);
  // On the emulated device the CPU is the judge of gradients and steps: finite differences would take it an hour.
  const test::EngineCases cases{
      .cuda = true, .against_cpu = has_cpu_backend(), .many_passes = !test::device_is_emulated()};
  test::run_engine_cases(run, cases);
  test::run_generation_cases(run, cases);
  if (test::device_is_emulated()) {
    run.run("generations run as graphs", check_graphs);
    run.run("a layer of a decoding pass is ten kernels", check_kernels);
  }
  run.run("engines on threads of their own give what each gives alone", check_side_by_side);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    run.run(std::string("thirty DPO steps are the CPU's, ") + (dtype == DType::f32 ? "f32" : "bf16"),
            [&] { test::expect_known_trajectory(test::run_trajectory(dtype, true, 1), dtype); });
  }
  test::run_adapter_cases(run, cases);
  test::run_adapter_batch_cases(run, cases);
  test::run_head_chunk_cases(run);
  return run.finish();
}
