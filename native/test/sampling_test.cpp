// The CPU backend's sampling against one that sorts: the same tokens for flat, peaked, tied and extreme logits.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "backend/cpu/kernels/sampling.h"
#include "isas.h"
#include "test_support.h"

namespace tempora::test {
namespace {

struct Choice {
  float logit, weight;
  std::int32_t token;
};

double mass_of(const std::vector<Choice>& choices) {
  double mass = 0;
  for (const Choice& choice : choices) mass += choice.weight;
  return mass;
}

// Draws from a row as the backend does, with its exponentials, but by sorting. `mass`: of the whole row.
std::int32_t draw_by_sorting(std::vector<Choice> choices, double mass, const SamplingOptions& options, double uniform) {
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  if (options.top_k > 0 && options.top_k < static_cast<int>(choices.size())) {
    choices.resize(static_cast<std::size_t>(options.top_k));
    mass = mass_of(choices);
  }
  double wanted = mass * options.top_p;
  std::size_t kept = 0;
  while (kept < choices.size() && (kept == 0 || wanted > 0 || options.top_p >= 1)) wanted -= choices[kept++].weight;
  choices.resize(kept);
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.token < b.token; });
  double left = uniform * mass_of(choices);
  std::int32_t token = choices.front().token;
  for (const Choice& choice : choices) {
    if (choice.weight <= 0) continue;
    token = choice.token;
    if (left < choice.weight) break;
    left -= choice.weight;
  }
  return token;
}

void expect_same_draws(Isa isa, const std::vector<float>& row, const SamplingOptions& options) {
  setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
  const auto backend = make_cpu_backend(2);
  const SamplingKernels& kernels = sampling_kernels_for(isa);
  const auto vocab = static_cast<std::int64_t>(row.size());
  const float largest = *std::max_element(row.begin(), row.end()), inverse = 1 / options.temperature;
  const SamplingScale scale =
      sampling_scale(sampling_shift(kernels.glimpse(row.data(), vocab), largest, inverse), inverse);
  const std::size_t blocks = (row.size() + kSamplingBlock - 1) / kSamplingBlock;
  std::vector<float> weights(row.size()), maxima(blocks), sums(blocks);
  kernels.weights(row.data(), vocab, scale, weights.data());
  kernels.weigh(row.data(), vocab, {scale, scale, maxima.data(), nullptr, sums.data(), nullptr, {nullptr, nullptr, 1}});
  double mass = 0;
  for (const float sum : sums) mass += sum;
  double plain = 0;
  for (const float logit : row) plain += std::exp(static_cast<double>(logit) - static_cast<double>(largest));
  const double log_sum = std::log(plain);
  std::vector<Choice> choices;
  for (std::size_t i = 0; i < row.size(); ++i) choices.push_back({row[i], weights[i], static_cast<std::int32_t>(i)});

  Device device(*backend);
  const std::vector<double> uniforms = {0, 1e-9, 0.1, 0.37, 0.5, 0.83, 0.999, 1 - 1e-12};
  std::vector<double> rows;
  for (std::size_t i = 0; i < uniforms.size(); ++i) rows.insert(rows.end(), row.begin(), row.end());
  const auto count = static_cast<std::int64_t>(uniforms.size());
  const Tensor logits = device.upload(count, vocab, DType::f32, rows);
  std::vector<std::int32_t> tokens(uniforms.size());
  std::vector<float> log_probs(uniforms.size());
  backend->sample(logits.matrix, options, uniforms.data(), tokens.data(), log_probs.data());
  for (std::size_t i = 0; i < uniforms.size(); ++i) {
    const std::int32_t want = draw_by_sorting(choices, mass, options, uniforms[i]);
    const double log_prob =
        static_cast<double>(row[static_cast<std::size_t>(want)]) - static_cast<double>(largest) - log_sum;
    expect(std::abs(static_cast<double>(log_probs[i]) - log_prob) <= 1e-6 * (1 + std::abs(log_prob)),
           std::string(isa_name(isa)) + ": a log-prob of " + std::to_string(log_probs[i]) + ", not " +
               std::to_string(log_prob));
    expect(tokens[i] == want, std::string(isa_name(isa)) + ", top k " + std::to_string(options.top_k) + ", top p " +
                                  std::to_string(options.top_p) + ", uniform " + std::to_string(uniforms[i]) +
                                  ": token " + std::to_string(tokens[i]) + " in place of " + std::to_string(want));
  }
}

// Rows without a number to choose from, or with one that is none, wherever it lies.
void check_bad_rows(Isa isa) {
  setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
  const auto backend = make_cpu_backend(1);
  Device device(*backend);
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const std::int64_t vocab = 300;
  for (const SamplingOptions& options :
       std::vector<SamplingOptions>{{0, 0, 1}, {1, 0, 1}, {0.7f, 0, 0.9f}, {1, 5, 1}}) {
    std::vector<std::vector<double>> rows(2, std::vector<double>(vocab, 0.5));
    for (const double bad : {nan, infinity}) rows.push_back(rows[0]), rows.back()[77] = bad;
    for (const double bad : {nan, infinity}) rows.push_back(rows[0]), rows.back()[290] = bad;
    for (const double bad : {nan, -infinity}) rows.emplace_back(vocab, bad);
    std::vector<double> all;
    for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
    const Tensor logits = device.upload(static_cast<std::int64_t>(rows.size()), vocab, DType::f32, all);
    const std::vector<double> uniforms(rows.size(), 0.5);
    std::vector<std::int32_t> tokens(rows.size());
    std::vector<float> log_probs(rows.size());
    backend->sample(logits.matrix, options, uniforms.data(), tokens.data(), log_probs.data());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      expect((tokens[i] == -1) == (i >= 2), std::string(isa_name(isa)) + ": row " + std::to_string(i) + " gave token " +
                                                std::to_string(tokens[i]) + " at temperature " +
                                                std::to_string(options.temperature));
    }
  }
}

using Fill = std::function<float(Random&, std::int64_t)>;

void check_rows(std::int64_t vocab, const Fill& fill, const std::vector<SamplingOptions>& all) {
  Random random(17);
  std::vector<float> row;
  for (std::int64_t i = 0; i < vocab; ++i) row.push_back(fill(random, i));
  for (const Isa isa : tested_isas()) {
    for (const SamplingOptions& options : all) expect_same_draws(isa, row, options);
  }
}

std::vector<SamplingOptions> all_options(std::int64_t vocab) {
  std::vector<SamplingOptions> all;
  for (const float top_p : {0.0f, 0.01f, 0.3f, 0.5f, 0.9f, 0.95f, 0.99f, 0.9999f}) all.push_back({1, 0, top_p});
  const int size = static_cast<int>(vocab);
  for (const int top_k : {1, 2, 40, 1000, size / 2, size - 1}) {
    all.push_back({1, top_k, 1});
    all.push_back({1.3f, top_k, 0.9f});
  }
  all.push_back({1, 0, 1});
  all.push_back({0.5f, 0, 1});
  all.push_back({0.3f, 0, 0.9f});
  all.push_back({2, 0, 0.6f});
  return all;
}

struct Shape {
  const char* name;
  Fill fill;
};

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {
      {"flat", [](Random& random, std::int64_t) { return static_cast<float>(random.normal()); }},
      {"nearly level", [](Random& random, std::int64_t) { return static_cast<float>(0.01 * random.normal()); }},
      {"peaked", [](Random& random,
                    std::int64_t i) { return static_cast<float>(2 * random.normal() + (i % 9973 == 5 ? 14 : 0)); }},
      {"all tied", [](Random&, std::int64_t) { return 3.5f; }},
      {"tied in a few values",
       [](Random& random, std::int64_t) { return std::round(static_cast<float>(2 * random.normal())) / 2; }},
      {"periodic", [](Random&, std::int64_t i) { return static_cast<float>(i % 32) / 8; }},
      {"extreme",
       [](Random& random, std::int64_t i) { return i % 3 == 0 ? -3e38f : static_cast<float>(60 * random.normal()); }},
      {"all but a few impossible",
       [](Random& random, std::int64_t i) {
         return i % 500 == 3 ? static_cast<float>(random.normal()) : -std::numeric_limits<float>::infinity();
       }},
  };
  return all;
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  for (const Shape& shape : shapes()) {
    // From 3001 on the sampler estimates. None is a multiple of a block or a vector.
    for (const std::int64_t vocab : {67, 3001, 9001}) {
      run.run(std::string(shape.name) + " logits of " + std::to_string(vocab) + " tokens",
              [&] { check_rows(vocab, shape.fill, all_options(vocab)); });
    }
  }
  run.run("rows that are no numbers to choose from give no token", [] {
    for (const tempora::Isa isa : tested_isas()) check_bad_rows(isa);
  });
  run.run("rows about as long as a vector, a block, a group and a span", [] {
    for (const std::int64_t vocab : {1, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 8192}) {
      check_rows(vocab, shapes().front().fill, {{1, 0, 0.9f}, {0.7f, 0, 1}, {1.3f, 3, 0.8f}});
    }
  });
  // Of 273 groups every other is sampled, and the last is a part.
  run.run("flat logits of 70001 tokens", [] {
    check_rows(70001, shapes().front().fill, {{1, 0, 0.9f}, {0.7f, 0, 0.5f}});
  });
  run.run("one logit far above those that are guessed from", [] {
    for (const float above : {30.0f, 60.0f}) {
      const Fill fill = [above](Random& random, std::int64_t i) {
        return static_cast<float>(random.normal()) + (i == 1234 ? above : 0);
      };
      check_rows(9001, fill, {{1, 0, 0.9f}, {1, 0, 1}, {0.7f, 0, 0.9f}, {20, 0, 0.9f}});
    }
  });
  for (const std::size_t shape : {0, 1, 2}) {
    run.run(std::string(shapes()[shape].name) + " logits of 131072 tokens", [&] {
      check_rows(131072, shapes()[shape].fill, {{1, 0, 0.5f}, {1, 0, 0.9f}, {1, 0, 0.999f}, {0.7f, 0, 0.95f}});
    });
  }
  return run.finish();
}
