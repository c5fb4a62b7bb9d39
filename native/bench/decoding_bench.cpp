// Decoding on SmolLM2-135M's shape: decoding_bench [threads] [rounds] [samples ...]. For each number of samples of a
// prompt of 128 tokens the time of a step, and a sum of tokens and log-probs, which tells whether two builds give the
// same bits. Each of a few short stretches of a completion is timed in all rounds, so that the least of each was seldom
// disturbed. For comparisons run two builds in turn.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include "small_model_support.h"

namespace {

using namespace tempora;

// The logits' deviation is some 6, the likeliest token has about half of the mass at temperature 0.7.
constexpr float kPeaked = 8.6f;
constexpr int kStretches = 7, kSteps = 8;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Checksum {
 public:
  void add(const GenerationStep& step) {
    for (std::size_t i = 0; i < step.tokens.size(); ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, &step.log_probs[i], sizeof bits);
      sum_ = sum_ * 1099511628211u + (static_cast<std::uint64_t>(step.tokens[i]) << 32 | bits);
    }
  }
  std::uint64_t sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 14695981039346656037u;
};

GenerationRequest request_of(int samples) {
  GenerationRequest request = small_request(samples);
  request.options.sampling.temperature = 0.7f;
  request.options.sampling.top_p = 0.9f;
  request.options.max_new_tokens = (1 + kStretches) * kSteps;
  request.options.max_cache_tokens = 256 + samples * 80;
  return request;
}

void measure(Engine& engine, int samples, int rounds) {
  std::vector<double> least(kStretches, 1e30), all;
  Checksum checksum;
  for (int round = 0; round < rounds; ++round) {
    const auto generation = engine.start_generation(request_of(samples));
    checksum.add(generation->step(kSteps, nullptr));
    for (double& best : least) {
      const double start = seconds_now();
      const GenerationStep steps = generation->step(kSteps, nullptr);
      const double seconds = (seconds_now() - start) / kSteps;
      best = std::min(best, seconds);
      all.push_back(seconds);
      checksum.add(steps);
    }
  }
  std::sort(all.begin(), all.end());
  const double best = std::accumulate(least.begin(), least.end(), 0.0) / kStretches;
  std::printf("%4d samples: %7.3f ms a step at best, %7.3f in the median, %6.0f tokens/s; %016llx\n", samples,
              best * 1e3, all[all.size() / 2] * 1e3, samples / best, static_cast<unsigned long long>(checksum.sum()));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto engine = small_engine(argc > 1 ? std::atoi(argv[1]) : 2, kPeaked);
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  std::vector<int> samples{1, 7, 28};
  if (argc > 3) samples.clear();
  for (int i = 3; i < argc; ++i) samples.push_back(std::atoi(argv[i]));
  for (const int count : samples) measure(*engine, count, rounds);
  return 0;
}
