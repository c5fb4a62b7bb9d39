// Gradients of the log-prob head from kept log-probs, which are rounded: against those from logits that are computed
// again, and those of f32, over a vocabulary where most tokens lie at log-probs of -8 to -16.
#include <cmath>
#include <string>

#include "test_support.h"

namespace tempora::test {
namespace {

constexpr std::int64_t kRows = 16, kWidth = 48, kVocab = 131072;

struct Gradients {
  std::vector<double> hidden, weight;
};

// Of the sum of one log-prob a row. `keep_dtype`: null where nothing is kept.
Gradients gradients(Device& device, const Tensor& hidden, const Tensor& weight, const DType* keep_dtype) {
  std::vector<std::int32_t> tokens, starts = {0};
  for (std::int32_t row = 0; row < kRows; ++row) {
    tokens.push_back(row * 7919 % static_cast<std::int32_t>(kVocab));
    starts.push_back(row + 1);
  }
  const Ints token = device.ints(tokens), start = device.ints(starts);
  const Edges edges = {kRows, token.data(), start.data()};
  const Tensor ones = device.upload(1, kRows, DType::f32, std::vector<double>(kRows, 1));
  const Tensor log_prob = device.output(1, kRows, DType::f32), lse = device.output(1, kRows, DType::f32);
  Tensor kept;
  if (keep_dtype != nullptr) {
    const std::size_t bytes = device.backend.kept_logits_bytes(kRows, kVocab, *keep_dtype);
    kept = device.output(1, static_cast<std::int64_t>((bytes + 3) / 4), DType::f32);
    kept.matrix = {kept.matrix.data, *keep_dtype, kRows, kVocab};
  }
  const auto head = device.weight(weight);
  device.backend.head_forward(hidden.matrix, *head, edges, log_prob.matrix.f32(), lse.matrix.f32(), kept.matrix);
  const Tensor d_hidden = device.output(kRows, kWidth, DType::f32);
  const Tensor d_weight = device.upload(kVocab, kWidth, DType::f32, std::vector<double>(kVocab * kWidth));
  device.backend.head_backward(hidden.matrix, *head, edges, ones.matrix.f32(), lse.matrix.f32(), kept.matrix,
                               d_hidden.matrix, d_weight.matrix, true);
  return {device.read(d_hidden), device.read(d_weight)};
}

void expect_near(const std::string& what, const std::vector<double>& got, std::vector<double> want) {
  const double norm = std::sqrt(dot(want, want));
  for (std::size_t i = 0; i < want.size(); ++i) want[i] -= got[i];
  const double off = std::sqrt(dot(want, want)) / norm;
  expect(off < 1e-2, what + " is off by " + std::to_string(off) + " of its norm");
}

// `common`: how far all tokens' weights lie from 0 in one direction, in units of their spread.
void check_kept(double spread, double common) {
  const auto backend = make_cpu_backend(2);
  Device device(*backend);
  Random random(3);
  const Tensor hidden = device.random(random, kRows, kWidth, DType::bf16);
  std::vector<double> values = random.normals(kVocab * kWidth, spread);
  const std::vector<double> direction = random.normals(kWidth, spread * common);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += direction[i % kWidth];
  const Tensor weight = device.upload(kVocab, kWidth, DType::bf16, values);
  const DType bf16 = DType::bf16;
  const Gradients kept = gradients(device, hidden, weight, &bf16);
  const Gradients again = gradients(device, hidden, weight, nullptr);
  expect_near("d_hidden, against logits computed again,", kept.hidden, again.hidden);
  expect_near("d_weight, against logits computed again,", kept.weight, again.weight);
  const Tensor hidden_f32 = device.upload(kRows, kWidth, DType::f32, hidden.values);
  const Tensor weight_f32 = device.upload(kVocab, kWidth, DType::f32, weight.values);
  const Gradients exact = gradients(device, hidden_f32, weight_f32, nullptr);
  expect_near("d_hidden, against f32,", kept.hidden, exact.hidden);
  expect_near("d_weight, against f32,", kept.weight, exact.weight);
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  for (const double spread : {0.05, 0.3}) {
    for (const double common : {0.0, 3.0}) {
      run.run("kept log-probs give the gradient of weights of spread " + std::to_string(spread) + " around " +
                  std::to_string(common),
              [=] { check_kept(spread, common); });
    }
  }
  return run.finish();
}
