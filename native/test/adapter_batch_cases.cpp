// Requests of several adapters in one live batch.
#include "adapter_support.h"
#include "engine_cases.h"

namespace tempora::test {
namespace {

constexpr std::uint64_t kSeed = 5;

struct Made {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  bool operator==(const Made&) const = default;
};

// The tokens of three requests, each through an adapter of its own or none, by request.
std::vector<Made> generate_live(Engine& engine, const std::vector<std::int32_t>& prompt,
                                const std::vector<std::int32_t>& adapters) {
  const auto batch = engine.start_batch({16, 96});
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    LiveRequest request;
    request.number = static_cast<std::int64_t>(i);
    request.prompt = prompt;
    request.adapter = adapters[i];
    request.samples = 2;
    request.prompt_key = 8;
    request.seed = 4;
    request.max_new_tokens = 7;
    batch->add(std::move(request));
  }
  std::vector<Made> rows(2 * adapters.size());
  for (std::size_t left = rows.size(), step = 0; left > 0; ++step) {
    expect(step < 200, "the batch comes to no end");
    const LiveStep made = batch->step(nullptr);
    for (std::size_t i = 0; i < made.tokens.size(); ++i) {
      Made& row = rows.at(2 * static_cast<std::size_t>(made.requests[i]) + static_cast<std::size_t>(made.samples[i]));
      row.tokens.push_back(made.tokens[i]);
      row.log_probs.push_back(made.log_probs[i]);
      if (made.finished[i] != 0) --left;
    }
  }
  return rows;
}

// The cache is too small for all rows at once: they give way, and pages go from one adapter's tree to another's.
void check_mixed_batch(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, kSeed);
  const int first = add_random(*engine, model.shape, 2), second = add_random(*engine, model.shape, 3, 0, false);
  const std::vector<std::int32_t> adapters = {second, Engine::kBase, first};
  Random random(71);
  const std::vector<std::int32_t> prompt = random.tokens(18, model.shape.vocab_size);
  const auto together = generate_live(*engine, prompt, adapters);
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    const auto alone = generate_live(*engine, prompt, {adapters[i]});
    expect(alone[0] == together[2 * i] && alone[1] == together[2 * i + 1],
           "request " + std::to_string(i) + " alone gave other bits than among three");
  }
  expect(!(together[0] == together[2]) && !(together[2] == together[4]), "adapters make no difference");
}

}  // namespace

void run_adapter_batch_cases(TestRun& run, const EngineCases& cases) {
  std::vector<TinyModel> models = tiny_models();
  for (TinyModel& model : models) {
    model.cuda = cases.cuda;
    const std::string name = model.name + ", adapters: each request of a batch keeps its own";
    run.run(name, [&] { check_mixed_batch(model, DType::f32); });
    run.run(name + " in bf16", [&] { check_mixed_batch(model, DType::bf16); });
  }
}

}  // namespace tempora::test
