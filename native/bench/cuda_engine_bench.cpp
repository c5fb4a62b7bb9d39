// The engine on a CUDA device: a whole DPO step with AdamW, and decoding, of SmolLM2-135M's and Llama-3.2-1B's shapes
// with random weights in bf16. Beside each the time that its arithmetic and bytes would take at the device's ceilings,
// which are arguments (cuda_bench measures them): cuda_engine_bench [TFLOP/s] [GB/s] [135M or 1B]. Needs neither Bun
// nor oneDNN.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"

namespace {

using namespace tempora;

struct Ceilings {
  double flops, bytes;  // a second
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct NamedShape {
  std::string name;
  ModelShape shape;

  // Numbers in the blocks' matrices, which every token is multiplied by, and in the head.
  double block_numbers() const {
    const double q = static_cast<double>(shape.heads) * shape.head_dim;
    const double k = static_cast<double>(shape.kv_heads) * shape.head_dim;
    return static_cast<double>(shape.layers) * shape.hidden_size * (2 * q + 2 * k + 3.0 * shape.intermediate_size);
  }
  double head_numbers() const { return static_cast<double>(shape.vocab_size) * shape.hidden_size; }
};

NamedShape shape_of(const std::string& name, int vocabulary, int hidden, int intermediate, int layers, int heads,
                    int kv_heads) {
  ModelShape shape;
  shape.vocab_size = vocabulary;
  shape.hidden_size = hidden;
  shape.intermediate_size = intermediate;
  shape.layers = layers;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = 64;
  shape.norm_eps = 1e-5f;
  shape.tied_head = true;
  shape.windows.assign(static_cast<std::size_t>(layers), 0);
  for (int i = 0; i < 32; ++i) shape.rotary_frequencies.push_back(std::pow(1e5f, -static_cast<float>(i) / 32));
  shape.max_positions = 4096;
  return {name, shape};
}

std::unique_ptr<Engine> make_engine(const NamedShape& model) {
  EngineOptions options;
  options.cuda = true;
  options.dtype = DType::bf16;
  auto engine = std::make_unique<Engine>(model.shape, options);
  std::vector<float> values;
  for (int i = 0; i < engine->parameter_count(); ++i) {
    const std::size_t size = engine->parameter_bytes(i) / 2;
    const bool norm = size == static_cast<std::size_t>(model.shape.hidden_size);
    values.resize(size);
    std::uint32_t state = static_cast<std::uint32_t>(i);
    for (float& value : values) {
      state = state * 1664525u + 1013904223u;
      value = (static_cast<float>(state >> 8) * 0x1p-24f - 0.5f) * 0.1f + (norm ? 1.0f : 0.0f);
    }
    engine->set_parameter(i, DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()), size * 4);
  }
  return engine;
}

// Trees of a prompt with `answers` continuations.
Forest forest_of(const ModelShape& shape, int trees, int prompt, int answers, int answer) {
  Forest forest;
  forest.node_start.push_back(0);
  for (int tree = 0; tree < trees; ++tree) {
    for (int node = 0; node <= answers; ++node) {
      for (int i = 0; i < (node == 0 ? prompt : answer); ++i) {
        const auto at = static_cast<std::uint32_t>(forest.tokens.size());
        forest.tokens.push_back(
            static_cast<std::int32_t>(at * 2654435761u % static_cast<std::uint32_t>(shape.vocab_size)));
      }
      forest.node_start.push_back(static_cast<std::int32_t>(forest.tokens.size()));
      forest.node_parent.push_back(node == 0 ? -1 : tree * (answers + 1));
      forest.node_scored.push_back(node == 0 ? 0 : 1);
    }
  }
  return forest;
}

void report(const std::string& what, double tokens, double seconds, double flops, double bytes, Ceilings ceilings) {
  const double floor = std::max(flops / ceilings.flops, bytes / ceilings.bytes);
  std::printf("%-64s %9.2f ms  floor %8.2f ms  %5.1f %% of it  %9.0f tokens/s\n", what.c_str(), seconds * 1e3,
              floor * 1e3, 100 * floor / seconds, tokens / seconds);
  std::fflush(stdout);
}

// 6 FLOPs for each token and number of the blocks, and for each scored token and number of the head; attention not
// counted.
void measure_training(const NamedShape& model, Engine& engine, int trees, Ceilings ceilings) {
  constexpr int kPrompt = 512, kAnswer = 256;
  PreferenceStep step;
  step.forest = forest_of(model.shape, trees, kPrompt, 2, kAnswer);
  for (std::int32_t tree = 0; tree < trees; ++tree) step.pairs.insert(step.pairs.end(), {tree * 3 + 1, tree * 3 + 2});
  step.loss.terms = {{}};
  step.reference.assign(static_cast<std::size_t>(2 * trees), -1000.0);
  step.total_pairs = trees;
  step.total_chosen_tokens = trees * kAnswer;
  OptimizerOptions options;
  options.learning_rate = 1e-6;
  options.max_grad_norm = 1;
  double gradient = 1e30, optimizer = 1e30;
  for (int run = 0; run < 4; ++run) {
    const double start = seconds_now();
    engine.preference_step(step, nullptr);
    const double middle = seconds_now();
    engine.optimizer_step(options);
    if (run == 0) continue;
    gradient = std::min(gradient, middle - start);
    optimizer = std::min(optimizer, seconds_now() - middle);
  }
  const double tokens = trees * (kPrompt + 2.0 * kAnswer), scored = trees * 2.0 * kAnswer;
  const double numbers = model.block_numbers() + model.head_numbers();
  const std::string what = model.name + ", " + std::to_string(trees) + " pairs of 512 + 2 x 256";
  report(what + ": DPO gradient", tokens, gradient,
         6 * (tokens * model.block_numbers() + scored * model.head_numbers()), 0, ceilings);
  report(what + ": norm and AdamW", tokens, optimizer, 0, numbers * (2 * 2 + 4 * 4 + 4 + 4), ceilings);
}

void measure_decoding(const NamedShape& model, Engine& engine, int prompts, int samples, Ceilings ceilings) {
  constexpr int kPrompt = 512, kSteps = 64;
  const int rows = prompts * samples;
  GenerationRequest request;
  request.forest = forest_of(model.shape, prompts, kPrompt, 0, 0);
  for (int prompt = 0; prompt < prompts; ++prompt) {
    request.leaves.push_back(prompt);
    request.samples.push_back(samples);
    request.prompt_keys.push_back(static_cast<std::uint64_t>(prompt));
    request.seeds.push_back(static_cast<std::uint64_t>(prompt));
  }
  request.options.sampling.top_p = 0.95f;
  request.options.max_new_tokens = 2 * kSteps;
  request.options.max_rows = rows;
  request.options.max_cache_tokens = static_cast<std::int64_t>(prompts) * (kPrompt + 16) + rows * (2 * kSteps + 16);
  const auto generation = engine.start_generation(request);
  const double before = seconds_now();
  generation->step(1, nullptr);
  const double prefill = seconds_now() - before;
  generation->step(7, nullptr);
  const double start = seconds_now();
  generation->step(kSteps, nullptr);
  const double seconds = (seconds_now() - start) / kSteps;
  const double numbers = model.block_numbers() + model.head_numbers();
  const double cached = 2.0 * 2 * model.shape.layers * model.shape.kv_heads * model.shape.head_dim;  // bytes a token
  const std::string what = model.name + ", " + std::to_string(prompts) + " x " + std::to_string(samples);
  report(what + ": prompts of 512", prompts * kPrompt, prefill, 2.0 * prompts * kPrompt * model.block_numbers(), 0,
         ceilings);
  report(what + ": a decoding step, top p 0.95", rows, seconds, 2.0 * rows * numbers,
         2 * numbers + cached * (prompts * kPrompt + rows * (8.0 + kSteps / 2.0)), ceilings);
}

}  // namespace

int main(int argc, char** argv) {
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) {
    std::printf("no CUDA device: nothing was measured (%s)\n", info.problem.c_str());
    return 77;
  }
  const Ceilings ceilings{(argc > 1 ? std::atof(argv[1]) : 800) * 1e12, (argc > 2 ? std::atof(argv[2]) : 4200) * 1e9};
  std::printf("%s, ceilings %.0f TFLOP/s and %.0f GB/s\n", info.devices.front().c_str(), ceilings.flops * 1e-12,
              ceilings.bytes * 1e-9);
  for (const NamedShape& model :
       {shape_of("135M", 49152, 576, 1536, 30, 9, 3), shape_of("1B", 128256, 2048, 8192, 16, 32, 8)}) {
    if (argc > 3 && model.name != argv[3]) continue;
    const auto engine = make_engine(model);
    measure_training(model, *engine, 8, ceilings);
    measure_decoding(model, *engine, 1, 8, ceilings);
    measure_decoding(model, *engine, 64, 8, ceilings);
  }
  return 0;
}
