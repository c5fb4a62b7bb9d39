// Choosing a token from rows of 131072 logits on one thread: each kind of logits at each top p and temperature, the
// least of some runs. Prints one JSON line each, for `bun run bench`.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace {

using namespace tempora;

constexpr std::int64_t kVocabulary = 131072;
constexpr std::int64_t kRows = 4;
constexpr int kRuns = 40;

struct Kind {
  const char* name;
  float spread;   // standard deviation
  int peaks;      // tokens that stand out
  float at_peak;  // how much likelier they are, in logits
};

constexpr Kind kKinds[] = {
    {"normal logits", 1, 0, 0},     {"nearly level (spread 0.01)", 0.01f, 0, 0},
    {"peaked (spread 6)", 6, 0, 0}, {"spread 2 and 14 peaks", 2, 14, 8},
    {"all tied", 0, 0, 0},
};

std::vector<float> logits_of(const Kind& kind) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> logits(static_cast<std::size_t>(kRows * kVocabulary));
  for (float& logit : logits) logit = kind.spread * normal(generator);
  for (std::int64_t row = 0; row < kRows; ++row) {
    for (int peak = 0; peak < kind.peaks; ++peak) {
      const auto token = static_cast<std::int64_t>(generator() % kVocabulary);
      logits[static_cast<std::size_t>(row * kVocabulary + token)] += kind.at_peak + 0.3f * static_cast<float>(peak);
    }
  }
  return logits;
}

// Seconds a row.
double measure(Backend& backend, const Matrix& logits, const SamplingOptions& options) {
  std::vector<double> uniforms;
  for (std::int64_t row = 0; row < kRows; ++row) {
    uniforms.push_back((static_cast<double>(row) + 0.5) / static_cast<double>(kRows));
  }
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kRows));
  std::vector<float> log_probs(static_cast<std::size_t>(kRows));
  double best = INFINITY;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    backend.sample(logits, options, uniforms.data(), tokens.data(), log_probs.data());
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best / static_cast<double>(kRows);
}

}  // namespace

int main() {
  const auto backend = make_cpu_backend(1);
  const Buffer buffer = backend->allocate(static_cast<std::size_t>(kRows * kVocabulary) * 4, MemoryUse::workspace);
  const Matrix logits{buffer.data(), DType::f32, kRows, kVocabulary};
  for (const Kind& kind : kKinds) {
    const std::vector<float> host = logits_of(kind);
    backend->copy_in(buffer.data(), host.data(), host.size() * sizeof(float));
    for (const float temperature : {1.0f, 0.7f}) {
      for (const float top_p : {1.0f, 0.999f, 0.99f, 0.95f, 0.9f, 0.5f}) {
        const double seconds = measure(*backend, logits, {temperature, 0, top_p});
        std::printf(
            "{\"logits\": \"%s\", \"temperature\": %g, \"topP\": %g, \"vocabulary\": %lld, \"seconds\": %.6g}\n",
            kind.name, static_cast<double>(temperature), static_cast<double>(top_p),
            static_cast<long long>(kVocabulary), seconds);
      }
    }
  }
}
