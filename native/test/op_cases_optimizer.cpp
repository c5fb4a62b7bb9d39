#include <cmath>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

void check_sum_of_squares(Device& device, DType dtype) {
  Random random(21);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{79}, std::int64_t{100'003}}) {
    const Tensor x = device.random(random, 1, count, dtype, 1e-3);
    const double got = device.backend.sum_of_squares(x.matrix);
    device.note(std::vector<double>{got});
    expect_close("sum of squares", {got}, {dot(x.values, x.values)}, 1e-12);
  }
}

AdamWOptions options_of(const reference::AdamW& o, std::uint64_t key) {
  AdamWOptions options;
  options.learning_rate = o.learning_rate;
  options.beta1 = o.beta1;
  options.beta2 = o.beta2;
  options.epsilon = o.epsilon;
  options.weight_decay = o.weight_decay;
  options.gradient_scale = o.gradient_scale;
  options.step = o.step;
  options.rounding_key = key;
  return options;
}

void check_adamw(Device& device, DType dtype) {
  Random random(22);
  const std::int64_t count = 20'011;
  const Tensor weight = device.random(random, 1, count, dtype);
  const Tensor first = device.upload(1, count, DType::f32, std::vector<double>(count));
  const Tensor second = device.upload(1, count, DType::f32, std::vector<double>(count));
  std::vector<double> want = weight.values, want_first = first.values, want_second = second.values;
  for (std::int64_t step = 1; step <= 3; ++step) {
    const Tensor gradient = device.random(random, 1, count, DType::f32, step == 2 ? 1e-6 : 1);
    const reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, step};
    device.backend.adamw(weight.matrix, gradient.matrix, first.matrix.f32(), second.matrix.f32(),
                         options_of(o, static_cast<std::uint64_t>(step)));
    reference::adamw(o, gradient.values, want, want_first, want_second);
  }
  // Stochastic rounding goes to a neighbour: a step of bf16, 1/128 at most, each time.
  expect_close("weight", device.read(weight), want, dtype == DType::f32 ? 1e-5 : 3.0 / 128);
  expect_close("first", device.read(first), want_first, 1e-5);
  expect_close("second", device.read(second), want_second, 1e-5);
}

// Updates far below bf16's resolution must move the mean as far as they would in f32.
void check_stochastic_rounding(Device& device, DType dtype) {
  if (dtype != DType::bf16) return device.note(std::vector<int>{1});
  const std::int64_t count = 1 << 16;
  const Tensor weight = device.upload(1, count, dtype, std::vector<double>(count, 1.0));
  const Tensor gradient = device.upload(1, count, DType::f32, std::vector<double>(count, 1.0));
  const Tensor first = device.upload(1, count, DType::f32, std::vector<double>(count));
  const Tensor second = device.upload(1, count, DType::f32, std::vector<double>(count));
  const reference::AdamW o{1e-4, 0.9, 0.999, 1e-8, 0, 1, 1};
  device.backend.adamw(weight.matrix, gradient.matrix, first.matrix.f32(), second.matrix.f32(), options_of(o, 77));
  double sum = 0;
  for (const double value : device.read(weight)) sum += value;
  // Steps of 1/256 below 1 with probability 0.0256: the mean's standard deviation is 2.4e-6.
  const double mean = sum / static_cast<double>(count);
  expect(std::abs(mean - (1 - 1e-4)) < 1.2e-5, "the mean is " + std::to_string(mean) + " after a step of 1e-4 from 1");
}

}  // namespace

std::vector<OpCase> optimizer_cases() {
  return {
      {"sum_of_squares", check_sum_of_squares},
      {"adamw", check_adamw},
      {"stochastic rounding", check_stochastic_rounding},
  };
}

}  // namespace tempora::test
