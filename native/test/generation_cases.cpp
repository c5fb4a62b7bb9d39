// What a generation gives depends neither on how its passes are asked for nor on whether they are recorded.
#include <algorithm>

#include "engine_cases.h"
#include "engine_support.h"

namespace tempora::test {
namespace {

constexpr std::int32_t kSamples = 2, kNewTokens = 9;

struct Made {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  int finished = 0;
  bool operator==(const Made&) const = default;
};

std::vector<std::vector<std::int32_t>> prompts_of(const TinyModel& model) {
  Random random(12);
  return {random.tokens(21, model.shape.vocab_size), random.tokens(9, model.shape.vocab_size)};
}

GenerationRequest request_of(const TinyModel& model) {
  GenerationRequest request;
  for (const std::vector<std::int32_t>& prompt : prompts_of(model)) {
    request.forest.node_start.push_back(static_cast<std::int32_t>(request.forest.tokens.size()));
    request.forest.tokens.insert(request.forest.tokens.end(), prompt.begin(), prompt.end());
    request.forest.node_parent.push_back(-1);
    request.forest.node_scored.push_back(0);
    request.leaves.push_back(static_cast<std::int32_t>(request.leaves.size()));
    request.samples.push_back(kSamples);
    request.prompt_keys.push_back(request.prompt_keys.size());
    request.seeds.push_back(4);
  }
  request.forest.node_start.push_back(static_cast<std::int32_t>(request.forest.tokens.size()));
  request.options.sampling.top_p = 0.9f;
  request.options.max_new_tokens = kNewTokens;
  request.options.max_rows = 4;
  request.options.max_cache_tokens = 4096;
  return request;
}

// By row, from so many steps a call.
std::vector<Made> generate(Engine& engine, const GenerationRequest& request, int steps) {
  const auto generation = engine.start_generation(request);
  std::vector<Made> rows(kSamples * request.leaves.size());
  for (bool done = false; !done;) {
    const GenerationStep step = generation->step(steps, nullptr);
    for (std::size_t i = 0; i < step.rows.size(); ++i) {
      Made& row = rows.at(static_cast<std::size_t>(step.rows[i]));
      expect(row.finished == 0, "a row goes on after its end");
      row.tokens.push_back(step.tokens[i]);
      row.log_probs.push_back(step.log_probs[i]);
      row.finished = step.finished[i];
    }
    done = step.done;
  }
  return rows;
}

// The same rows of a live batch. Those that ask for likely tokens are in no recorded pass.
std::vector<Made> generate_live(Engine& engine, const TinyModel& model, bool recorded) {
  const auto batch = engine.start_batch({4, 4096});
  const auto prompts = prompts_of(model);
  for (std::size_t prompt = 0; prompt < prompts.size(); ++prompt) {
    LiveRequest request;
    request.number = static_cast<std::int64_t>(prompt);
    request.prompt = prompts[prompt];
    request.samples = kSamples;
    request.prompt_key = prompt;
    request.seed = 4;
    request.sampling.top_p = 0.9f;
    request.max_new_tokens = kNewTokens;
    request.likely = recorded ? 0 : 1;
    batch->add(std::move(request));
  }
  std::vector<Made> rows(kSamples * prompts.size());
  for (std::size_t left = rows.size(), step = 0; left > 0; ++step) {
    expect(step < 100, "the batch comes to no end");
    const LiveStep made = batch->step(nullptr);
    for (std::size_t i = 0; i < made.tokens.size(); ++i) {
      Made& row =
          rows.at(kSamples * static_cast<std::size_t>(made.requests[i]) + static_cast<std::size_t>(made.samples[i]));
      row.tokens.push_back(made.tokens[i]);
      row.log_probs.push_back(made.log_probs[i]);
      row.finished = made.finished[i];
      if (row.finished != 0) --left;
    }
  }
  return rows;
}

void check_steps_at_once(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, 5);
  GenerationRequest request = request_of(model);
  const std::vector<Made> want = generate_live(*engine, model, false);
  for (const int steps : {1, 4, kNewTokens + 3}) {
    expect(generate(*engine, request, steps) == want,
           std::to_string(steps) + " steps at once give other bits than passes that are not recorded");
  }
  expect(generate_live(*engine, model, true) == want, "recorded passes of a batch give other bits");
  // A number of rows that few recordings are made for, and one that joins when another has ended.
  request.options.max_rows = 3;
  expect(generate(*engine, request, 5) == want, "rows that wait for others give other bits");
}

void check_ends(const TinyModel& model, DType dtype) {
  const auto engine = random_engine(model, dtype, 5);
  GenerationRequest request = request_of(model);
  std::vector<Made> want = generate(*engine, request, 1);
  request.options.end_tokens = {want[0].tokens[4], want[3].tokens[1]};
  const std::vector<std::int32_t>& ends = request.options.end_tokens;
  for (Made& row : want) {
    const auto end = std::ranges::find_first_of(row.tokens, ends);
    if (end == row.tokens.end()) continue;
    const auto length = static_cast<std::size_t>(end - row.tokens.begin()) + 1;
    row.tokens.resize(length);
    row.log_probs.resize(length);
    row.finished = 1;
  }
  for (const int steps : {1, kNewTokens}) {
    expect(generate(*engine, request, steps) == want,
           "with " + std::to_string(steps) + " steps at once rows that end early give others");
  }
}

// So small that rows give way in the middle of what is asked for at once.
void check_small_cache(const TinyModel& model) {
  const auto engine = random_engine(model, DType::bf16, 5);
  GenerationRequest request = request_of(model);
  request.options.max_new_tokens = 36;
  const std::vector<Made> want = generate(*engine, request, 1);
  for (const std::int64_t pages : {5, 7, 9}) {
    request.options.max_cache_tokens = pages * kCachePage;
    expect(generate(*engine, request, 8) == want, "rows of a cache of " + std::to_string(pages) + " pages give others");
  }
}

}  // namespace

void run_generation_cases(TestRun& run, const EngineCases& cases) {
  std::vector<TinyModel> models = tiny_models();
  for (TinyModel& model : models) {
    model.cuda = cases.cuda;
    const std::string name = model.name + ", generation: ";
    run.run(name + "any number of steps at once gives the same bits", [&] { check_steps_at_once(model, DType::bf16); });
    if (cases.many_passes) run.run(name + "in f32 too", [&] { check_steps_at_once(model, DType::f32); });
  }
  run.run("generation: rows end at their end token, however many steps are asked for",
          [&] { check_ends(models[0], DType::bf16); });
  if (!cases.many_passes) return;
  run.run("generation: rows give way between steps that were asked for at once", [&] { check_small_cache(models[0]); });
}

}  // namespace tempora::test
