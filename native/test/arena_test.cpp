// The arena of a step, and what a training over forests of mixed lengths holds because of it.
#include <string>

#include "engine/arena.h"
#include "engine_support.h"

namespace tempora::test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::size_t held(const Backend& backend) { return backend.used(MemoryUse::workspace); }

// One step of several requests, some of them within a scope.
void take_step(Arena& arena, std::size_t unit) {
  arena.reset();
  arena.bytes(5 * unit);
  {
    const ArenaScope scope(arena);
    arena.bytes(9 * unit);
  }
  for (int i = 0; i < 4; ++i) arena.bytes(3 * unit);
}

void check_requests() {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  char* first = static_cast<char*>(arena.bytes(1));
  char* second = static_cast<char*>(arena.bytes(65));
  expect(second == first + 64, "a request does not begin at the next 64 bytes");
  {
    const ArenaScope scope(arena);
    expect(arena.bytes(9 * kMiB) != nullptr, "a request larger than a chunk got nothing");
  }
  expect(arena.bytes(1) == second + 128, "the end of a scope did not take back what it used");
  arena.reset();
  arena.bytes(1);
  expect(held(*backend) < 11 * kMiB, "one chunk for both: " + std::to_string(held(*backend)));
  arena.clear();
  expect(held(*backend) == 0, "a cleared arena holds memory");
  arena.bytes(1);
  expect(held(*backend) < 9 * kMiB, "a cleared arena remembers the large step before");
}

void check_same_step_again() {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  for (int i = 0; i < 2; ++i) take_step(arena, 3 * kMiB);
  const std::size_t once = held(*backend), peak = backend->peak();
  arena.reset();
  const void* data = arena.bytes(1);
  for (int i = 0; i < 5; ++i) take_step(arena, 3 * kMiB);
  arena.reset();
  expect(arena.bytes(1) == data && held(*backend) == once && backend->peak() == peak,
         "a step of the size of the one before took other memory");
}

void check_growing_steps() {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  for (std::size_t unit = 3 * kMiB; unit <= 4 * kMiB; unit += 64 * 1024) take_step(arena, unit);
  take_step(arena, 4 * kMiB);
  const std::size_t needed = 17 * 4 * kMiB;
  expect(held(*backend) >= needed && held(*backend) <= needed + needed / 10,
         std::to_string(held(*backend)) + " bytes are held of which " + std::to_string(needed) + " are needed");
}

void check_announced() {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  arena.bytes(kMiB);
  arena.expect(30 * 3 * kMiB);
  for (int i = 0; i < 30; ++i) arena.bytes(3 * kMiB);
  expect(held(*backend) <= (2 + 90) * kMiB, "announced requests hold " + std::to_string(held(*backend)));
  arena.reset();
  arena.bytes(1);
  arena.bytes(92 * kMiB);
  expect(held(*backend) <= (92 + 92) * kMiB, "a step after it asks for what was announced before");
}

// Within one step: what blocks take one after another, each in a scope.
void check_scopes_of_one_step() {
  const auto backend = make_cpu_backend(1);
  Arena arena(*backend);
  const auto block = [&arena] {
    const ArenaScope scope(arena);
    for (int i = 0; i < 10; ++i) arena.bytes(kMiB + kMiB / 8);
  };
  block();
  block();
  const std::size_t once = held(*backend);
  expect(once <= 12 * kMiB, "blocks of 11.25 MiB hold " + std::to_string(once));
  const ArenaScope scope(arena);
  char* data = static_cast<char*>(arena.bytes(64));
  *data = 1;
  block();
  for (int i = 0; i < 3; ++i) block();
  expect(*data == 1 && arena.bytes(64) == data + 64, "a scope took back what was in use outside of it");
}

// Trees of 100 tokens, and a last one of what is left.
Forest forest_of(std::int32_t tokens, std::int64_t vocab) {
  Random random(8);
  Forest forest;
  forest.tokens = random.tokens(tokens, vocab);
  for (std::int32_t at = 0; at < tokens; at += 100) {
    forest.node_start.push_back(at);
    forest.node_parent.push_back(-1);
    forest.node_scored.push_back(1);
  }
  forest.node_start.push_back(tokens);
  return forest;
}

TinyModel wide_model() {
  TinyModel model = tiny_models().front();
  model.shape.hidden_size = 16 * model.shape.heads;
  model.shape.head_dim = 16;
  model.shape.rotary_frequencies = {1, 0.8f, 0.6f, 0.4f, 0.2f, 0.1f, 0.05f, 0.02f};
  model.shape.intermediate_size = 1024;
  return model;
}

std::size_t peak_of(const std::vector<std::int32_t>& lengths) {
  const TinyModel model = wide_model();
  const auto engine = random_engine(model, DType::f32, 5);
  for (const std::int32_t length : lengths) {
    const Forest forest = forest_of(length, model.shape.vocab_size);
    engine->accumulate(forest, std::vector<float>(forest.tokens.size(), 0.01f), false, nullptr);
    engine->optimizer_step({});
  }
  return engine->memory().peak;
}

void check_first_step() {
  TinyModel model = wide_model();
  model.shape.layers = 8;
  model.shape.windows.resize(8);
  const auto engine = random_engine(model, DType::f32, 5);
  const Forest forest = forest_of(2000, model.shape.vocab_size);
  for (const bool checkpointing : {true, false}) {
    std::vector<std::size_t> workspace;
    for (int step = 0; step < 2; ++step) {
      engine->accumulate(forest, std::vector<float>(forest.tokens.size(), 0.01f), checkpointing, nullptr);
      workspace.push_back(engine->memory().workspace);
    }
    expect(workspace[0] <= workspace[1] + workspace[1] / 20,
           "the first step holds " + std::to_string(workspace[0]) + ", the second " + std::to_string(workspace[1]));
    engine->reset_optimizer();
  }
}

void check_mixed_lengths() {
  const std::size_t longest = peak_of({2500});
  const std::size_t mixed = peak_of({2000, 2060, 2110, 2150, 2050, 2210, 2260, 2320, 2100, 2370, 2440, 2500, 2300});
  expect(mixed <= longest + longest / 10,
         "mixed lengths held " + std::to_string(mixed) + " bytes, the longest by itself " + std::to_string(longest));
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  run.run("an arena hands out, takes back and forgets", check_requests);
  run.run("the same step again allocates nothing", check_same_step_again);
  run.run("steps a little longer each hold what the longest needs", check_growing_steps);
  run.run("what is announced is one chunk", check_announced);
  run.run("blocks of one step hold what the largest needs", check_scopes_of_one_step);
  run.run("a first step holds what the second does", check_first_step);
  run.run("a training over mixed lengths peaks where its longest step does", check_mixed_lengths);
  return run.finish();
}
