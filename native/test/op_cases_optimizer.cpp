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

struct HostMoments {
  std::vector<float> first, second;
};

HostMoments moments_of(Device& device, const Moments& moments) {
  const auto size = static_cast<std::size_t>(moments.size);
  HostMoments host{std::vector<float>(size), std::vector<float>(size)};
  device.backend.get_moments(moments, host.first.data(), host.second.data());
  device.note(host.first);
  device.note(host.second);
  return host;
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// A step after moments were read and written elsewhere is the step that would have come.
void check_moments(Device& device, DType dtype) {
  Random random(23);
  const std::int64_t count = 9'001;
  const Tensor weight = device.random(random, 1, count, dtype), copy = device.output(1, count, dtype);
  Moments moments = device.backend.make_moments(MomentsFormat::f32, count);
  const HostMoments none = moments_of(device, moments);
  expect_close("new moments", doubles(none.first), std::vector<double>(count), 0);
  expect_close("new moments", doubles(none.second), std::vector<double>(count), 0);
  reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 1};
  device.backend.adamw(weight.matrix, device.random(random, 1, count, DType::f32).matrix, moments, options_of(o, 5));

  device.backend.copy(copy.buffer.data(), weight.buffer.data(), weight.matrix.bytes());
  Moments restored = device.backend.make_moments(MomentsFormat::f32, count);
  const HostMoments saved = moments_of(device, moments);
  device.backend.set_moments(restored, saved.first.data(), saved.second.data());
  const Tensor gradient = device.random(random, 1, count, DType::f32);
  o.step = 2;
  device.backend.adamw(weight.matrix, gradient.matrix, moments, options_of(o, 6));
  device.backend.adamw(copy.matrix, gradient.matrix, restored, options_of(o, 6));
  expect(device.read(weight) == device.read(copy), "a step from restored moments gave other weights");
  const HostMoments want = moments_of(device, moments), got = moments_of(device, restored);
  expect(got.first == want.first && got.second == want.second, "a step from restored moments gave other moments");
}

void check_adamw(Device& device, DType dtype) {
  Random random(22);
  const std::int64_t count = 20'011;
  const Tensor weight = device.random(random, 1, count, dtype);
  Moments moments = device.backend.make_moments(MomentsFormat::f32, count);
  std::vector<double> want = weight.values, want_first(count), want_second(count);
  for (std::int64_t step = 1; step <= 3; ++step) {
    const Tensor gradient = device.random(random, 1, count, DType::f32, step == 2 ? 1e-6 : 1);
    const reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, step};
    device.backend.adamw(weight.matrix, gradient.matrix, moments, options_of(o, static_cast<std::uint64_t>(step)));
    reference::adamw(o, gradient.values, want, want_first, want_second);
  }
  // Stochastic rounding goes to a neighbour: a step of bf16, 1/128 at most, each time.
  expect_close("weight", device.read(weight), want, dtype == DType::f32 ? 1e-5 : 3.0 / 128);
  const HostMoments got = moments_of(device, moments);
  expect_close("first", doubles(got.first), want_first, 1e-5);
  expect_close("second", doubles(got.second), want_second, 1e-5);
}

// Updates far below bf16's resolution must move the mean as far as they would in f32.
void check_stochastic_rounding(Device& device, DType dtype) {
  if (dtype != DType::bf16) return device.note(std::vector<int>{1});
  const std::int64_t count = 1 << 16;
  const Tensor weight = device.upload(1, count, dtype, std::vector<double>(count, 1.0));
  const Tensor gradient = device.upload(1, count, DType::f32, std::vector<double>(count, 1.0));
  Moments moments = device.backend.make_moments(MomentsFormat::f32, count);
  const reference::AdamW o{1e-4, 0.9, 0.999, 1e-8, 0, 1, 1};
  device.backend.adamw(weight.matrix, gradient.matrix, moments, options_of(o, 77));
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
      {"moments", check_moments},
      {"stochastic rounding", check_stochastic_rounding},
  };
}

}  // namespace tempora::test
