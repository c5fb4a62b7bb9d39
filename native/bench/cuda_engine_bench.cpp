// The engine on a CUDA device: whole DPO steps with AdamW, full and by LoRA of rank 16 on all linear modules, and
// decoding, of SmolLM2-135M's, Llama-3.2-1B's and Llama-3.1-8B's shapes with random weights in bf16 (8B by LoRA also in
// NF4, and in full with moments of 8 bits). Beside each the time that its arithmetic and bytes would take at the
// device's ceilings, which cuda_bench measures: cuda_engine_bench [TFLOP/s] [GB/s] [135M | 1B | 8B]..., 135M and 1B
// where none is named. Needs neither Bun nor oneDNN.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "backend/nf4.h"
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
    const double q = shape.query_size(), k = shape.key_size();
    return static_cast<double>(shape.layers) * shape.hidden_size * (2 * q + 2 * k + 3.0 * shape.intermediate_size);
  }
  double head_numbers() const { return static_cast<double>(shape.vocab_size) * shape.hidden_size; }
  double numbers() const { return block_numbers() + head_numbers() * (shape.tied_head ? 1 : 2); }
};

struct Sizes {
  int vocabulary, hidden, intermediate, layers, heads, kv_heads, head_dim;
};

NamedShape shape_of(const std::string& name, const Sizes& sizes, bool tied_head) {
  ModelShape shape;
  shape.vocab_size = sizes.vocabulary;
  shape.hidden_size = sizes.hidden;
  shape.intermediate_size = sizes.intermediate;
  shape.layers = sizes.layers;
  shape.heads = sizes.heads;
  shape.kv_heads = sizes.kv_heads;
  shape.head_dim = sizes.head_dim;
  shape.norm_eps = 1e-5f;
  shape.tied_head = tied_head;
  shape.windows.assign(static_cast<std::size_t>(shape.layers), 0);
  const int pairs = shape.head_dim / 2;
  for (int i = 0; i < pairs; ++i) {
    shape.rotary_frequencies.push_back(std::pow(1e5f, -static_cast<float>(i) / static_cast<float>(pairs)));
  }
  shape.max_positions = 4096;
  return {name, shape};
}

// Runs work(begin, end) over parts of a range on all cores: making 8B's numbers on one takes longer than its steps.
template <typename Work>
void on_all_cores(std::size_t count, const Work& work) {
  const std::size_t parts = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (std::size_t part = 0; part < parts; ++part) {
    threads.emplace_back([&, part] { work(count * part / parts, count * (part + 1) / parts); });
  }
  for (std::thread& thread : threads) thread.join();
}

std::uint32_t scrambled(std::size_t i) {
  const auto low = static_cast<std::uint32_t>(i);
  const std::uint32_t state = low * 747796405u + 2891336453u;
  return ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
}

// Around `middle`, up to 0.05 from it.
std::vector<std::uint16_t> random_bf16(std::size_t count, float middle) {
  std::vector<std::uint16_t> values(count);
  on_all_cores(count, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const float value = (static_cast<float>(scrambled(i) >> 8) * 0x1p-24f - 0.5f) * 0.1f + middle;
      std::uint32_t bits;
      std::memcpy(&bits, &value, 4);
      values[i] = static_cast<std::uint16_t>(bits >> 16);
    }
  });
  return values;
}

// Of n numbers, any codes with scales that give numbers of bf16's size.
std::vector<std::uint8_t> random_nf4(std::size_t n) {
  const Nf4Layout layout(static_cast<std::int64_t>(n));
  std::vector<std::uint8_t> storage(layout.bytes);
  on_all_cores(layout.scales, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) storage[i] = static_cast<std::uint8_t>(scrambled(i) >> 24);
  });
  const float scale = 0.01f, offset = 0.05f;
  for (std::size_t at = layout.scales; at < layout.offset; at += 4) std::memcpy(&storage[at], &scale, 4);
  std::memcpy(&storage[layout.offset], &offset, 4);
  return storage;
}

enum class Base { bf16, nf4 };

std::unique_ptr<Engine> make_engine(const NamedShape& model, Base base, MomentsFormat moments) {
  const double start = seconds_now();
  EngineOptions options;
  options.cuda = true;
  options.dtype = DType::bf16;
  options.moments = moments;
  if (base == Base::nf4) options.quantised = WeightFormat::nf4;
  auto engine = std::make_unique<Engine>(model.shape, options);
  const auto hidden = static_cast<std::size_t>(model.shape.hidden_size);
  const std::size_t table = hidden * static_cast<std::size_t>(model.shape.vocab_size);  // the largest tensor
  const std::vector<std::uint16_t> numbers = random_bf16(table, 0), ones = random_bf16(hidden, 1);
  std::map<std::size_t, std::vector<std::uint8_t>> blocks;  // by size
  for (int i = 0; i < engine->parameter_count(); ++i) {
    const std::size_t bytes = engine->parameter_bytes(i), size = bytes / 2;
    if (base == Base::nf4 && size != hidden && size != table) {
      std::vector<std::uint8_t>& storage = blocks[size];
      if (storage.empty()) storage = random_nf4(size);
      engine->set_parameter_blocks(i, storage.data(), storage.size());
    } else {
      const auto& values = size == hidden ? ones : numbers;
      engine->set_parameter(i, DType::bf16, reinterpret_cast<const std::uint8_t*>(values.data()), bytes);
    }
  }
  std::printf("%s%s made in %.1f s\n", model.name.c_str(), base == Base::nf4 ? " in NF4" : "", seconds_now() - start);
  return engine;
}

constexpr int kRank = 16;

// On all matrices of the blocks. Their numbers by parameterShapes of packages/engine/src/model.ts: a block has its
// norms in places 0 and 5 of nine.
int add_adapter(const NamedShape& model, Engine& engine) {
  AdapterSpec spec;
  for (int layer = 0; layer < model.shape.layers; ++layer) {
    for (const int place : {1, 2, 3, 4, 6, 7, 8}) spec.modules.push_back({1 + layer * 9 + place, kRank, 2});
  }
  const int adapter = engine.add_adapter(spec);
  for (int i = 0; i < engine.parameter_count(adapter); ++i) {
    std::vector<float> values(engine.parameter_bytes(i, adapter) / 4);
    for (std::size_t at = 0; at < values.size(); ++at) {
      values[at] = (static_cast<float>(scrambled(at) >> 8) * 0x1p-24f - 0.5f) * 0.02f;
    }
    engine.set_parameter(i, DType::f32, reinterpret_cast<const std::uint8_t*>(values.data()), values.size() * 4,
                         adapter);
  }
  return adapter;
}

double adapter_numbers(Engine& engine, int adapter) {
  double numbers = 0;
  for (int i = 0; i < engine.parameter_count(adapter); ++i) {
    numbers += static_cast<double>(engine.parameter_bytes(i, adapter)) / 4;
  }
  return numbers;
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

// The peak is the engine's since it was made.
void report(const std::string& what, const Engine& engine, double tokens, double seconds, double floor) {
  std::printf("%-66s %9.2f ms  floor %8.2f ms  %5.1f %% of it  %9.0f tokens/s  peak %6.1f GB\n", what.c_str(),
              seconds * 1e3, floor * 1e3, 100 * floor / seconds, tokens / seconds,
              static_cast<double>(engine.memory().peak) * 1e-9);
  std::fflush(stdout);
}

constexpr int kTrees = 8, kPrompt = 512, kAnswer = 256;
constexpr double kTokens = kTrees * (kPrompt + 2.0 * kAnswer), kScored = kTrees * 2.0 * kAnswer;

// What a step cannot do without. Attention is not counted.
struct StepFloor {
  double flops;            // of the gradient
  double optimizer_bytes;  // of the norm and AdamW
};

// 6 FLOPs for each token and number of the blocks, and for each scored token and number of the head. AdamW reads and
// writes weight and moments and reads the gradient, as the norm does.
StepFloor full_floor(const NamedShape& model, MomentsFormat moments) {
  return {6 * (kTokens * model.block_numbers() + kScored * model.head_numbers()),
          model.numbers() * (2 * 2 + 4 + 4 + 4.0 * (moments == MomentsFormat::f32 ? 4 : 1))};
}

// A frozen base has no gradient: 4 FLOPs.
StepFloor adapter_floor(const NamedShape& model, double adapter) {
  return {4 * (kTokens * model.block_numbers() + kScored * model.head_numbers()) + 6 * kTokens * adapter,
          adapter * (2 * 4 + 4 + 4 + 4.0 * 4)};
}

PreferenceStep preference_step(const NamedShape& model) {
  PreferenceStep step;
  step.forest = forest_of(model.shape, kTrees, kPrompt, 2, kAnswer);
  for (std::int32_t tree = 0; tree < kTrees; ++tree) step.pairs.insert(step.pairs.end(), {tree * 3 + 1, tree * 3 + 2});
  step.loss.terms = {{}};
  step.reference.assign(static_cast<std::size_t>(2 * kTrees), -1000.0);
  step.total_pairs = kTrees;
  step.total_chosen_tokens = kTrees * kAnswer;
  return step;
}

void measure_training(const std::string& name, const NamedShape& model, Engine& engine, StepFloor floor,
                      Ceilings ceilings) {
  const PreferenceStep step = preference_step(model);
  OptimizerOptions options;
  options.learning_rate = 1e-6;
  options.max_grad_norm = 1;
  // What is read back, the final norm, waits for all that is queued.
  const int final_norm = engine.parameter_count() - (model.shape.tied_head ? 1 : 2);
  const auto wait = [&] { engine.get_parameter(final_norm); };
  double gradient = 1e30, optimizer = 1e30;
  for (int run = 0; run < 4; ++run) {
    const double start = seconds_now();
    engine.preference_step(step, nullptr);
    wait();
    const double middle = seconds_now();
    engine.optimizer_step(options);
    wait();
    if (run == 0) continue;
    gradient = std::min(gradient, middle - start);
    optimizer = std::min(optimizer, seconds_now() - middle);
  }
  const std::string what = name + ", 8 pairs of 512 + 2 x 256: ";
  const double gradient_floor = floor.flops / ceilings.flops, optimizer_floor = floor.optimizer_bytes / ceilings.bytes;
  report(what + "DPO gradient", engine, kTokens, gradient, gradient_floor);
  report(what + "norm and AdamW", engine, kTokens, optimizer, optimizer_floor);
  const double whole = gradient + optimizer;
  report(what + "the step", engine, kTokens, whole, gradient_floor + optimizer_floor);
  std::printf("%s: %.2f pairs/s; the optimizer is %.1f %% of the step\n", name.c_str(), kTrees / whole,
              100 * optimizer / whole);
}

// Through the active adapter where there is one.
void measure_decoding(const std::string& name, const NamedShape& model, Engine& engine, int prompts, int samples,
                      Ceilings ceilings) {
  constexpr int kSteps = 64;
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
  request.options.max_new_tokens = 3 * kSteps;
  request.options.max_rows = rows;
  request.options.max_cache_tokens = static_cast<std::int64_t>(prompts) * (kPrompt + 16) + rows * (3 * kSteps + 16);
  const auto generation = engine.start_generation(request);
  const double before = seconds_now();
  generation->step(1, nullptr);
  const double prefill = seconds_now() - before;
  generation->step(7, nullptr);
  const double start = seconds_now();
  generation->step(kSteps, nullptr);
  const double seconds = (seconds_now() - start) / kSteps;
  const double middle = seconds_now();
  for (int step = 0; step < kSteps; ++step) generation->step(1, nullptr);
  const double seconds_alone = (seconds_now() - middle) / kSteps;
  const double numbers = model.block_numbers() + model.head_numbers();
  const double cached = 2.0 * 2 * model.shape.layers * model.shape.key_size();  // bytes a token
  const std::string what = name + ", " + std::to_string(prompts) + " x " + std::to_string(samples);
  report(what + ": prompts of 512", engine, prompts * kPrompt, prefill,
         2.0 * prompts * kPrompt * model.block_numbers() / ceilings.flops);
  const auto floor = [&](double generated) {
    const double bytes = 2 * numbers + cached * (prompts * kPrompt + rows * generated);
    return std::max(2.0 * rows * numbers / ceilings.flops, bytes / ceilings.bytes);
  };
  report(what + ": a decoding step, top p 0.95", engine, rows, seconds, floor(8 + kSteps / 2.0));
  report(what + ": the same, each waited for", engine, rows, seconds_alone, floor(8 + 1.5 * kSteps));
}

// LoRA before the full step, whose gradients and moments would be in its peak.
void measure_adapters(const std::string& name, const NamedShape& model, Engine& engine, Ceilings ceilings) {
  const int adapter = add_adapter(model, engine);
  engine.activate_adapter(adapter);
  const std::string lora = name + " LoRA";
  measure_training(lora, model, engine, adapter_floor(model, adapter_numbers(engine, adapter)), ceilings);
  measure_decoding(lora, model, engine, 64, 8, ceilings);
  engine.activate_adapter(Engine::kBase);
  engine.remove_adapter(adapter);
}

void measure(const NamedShape& model, Ceilings ceilings) {
  const bool large = model.name == "8B";
  if (large) {
    const auto quantised = make_engine(model, Base::nf4, MomentsFormat::f32);
    measure_adapters("8B NF4", model, *quantised, ceilings);
  }
  // In full, 8B's moments in f32 would be 64 GB.
  const MomentsFormat moments = large ? MomentsFormat::blocks8 : MomentsFormat::f32;
  const auto engine = make_engine(model, Base::bf16, moments);
  if (model.name != "135M") measure_adapters(model.name, model, *engine, ceilings);
  if (!large) measure_decoding(model.name, model, *engine, 1, 8, ceilings);
  measure_decoding(model.name, model, *engine, 64, 8, ceilings);
  measure_training(large ? "8B, 8-bit moments" : model.name, model, *engine, full_floor(model, moments), ceilings);
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
  std::vector<std::string> names(argv + std::min(argc, 3), argv + argc);
  if (names.empty()) names = {"135M", "1B"};
  const std::vector<NamedShape> models = {shape_of("135M", {49152, 576, 1536, 30, 9, 3, 64}, true),
                                          shape_of("1B", {128256, 2048, 8192, 16, 32, 8, 64}, true),
                                          shape_of("8B", {128256, 4096, 14336, 32, 32, 8, 128}, false)};
  for (const std::string& name : names) {
    const auto found = std::find_if(models.begin(), models.end(), [&](const NamedShape& m) { return m.name == name; });
    if (found == models.end()) {
      std::printf("there is no model %s: 135M, 1B or 8B\n", name.c_str());
      return 2;
    }
    // A model that does not fit must not cost the others.
    try {
      measure(*found, ceilings);
    } catch (const std::exception& error) {
      std::printf("%s FAILED: %s\n", name.c_str(), error.what());
      return 1;
    }
  }
  return 0;
}
