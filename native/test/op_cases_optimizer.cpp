#include <algorithm>
#include <cmath>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

void check_sum_of_squares(Device& device, DType dtype) {
  Random random(21);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{79}, std::int64_t{100'003}}) {
    const Tensor x = device.random(random, 1, count, dtype, 1e-3);
    const double got = device.backend.sum_of_squares({x.matrix});
    device.note(std::vector<double>{got});
    expect_close("sum of squares", {got}, {dot(x.values, x.values)}, 1e-12);
  }
}

AdamWOptions options_of(const reference::AdamW& o) {
  AdamWOptions options;
  options.learning_rate = o.learning_rate;
  options.beta1 = o.beta1;
  options.beta2 = o.beta2;
  options.epsilon = o.epsilon;
  options.gradient_scale = o.gradient_scale;
  options.step = o.step;
  return options;
}

void step(Device& device, const Tensor& weight, const Tensor& gradient, Moments& moments, const reference::AdamW& o,
          std::uint64_t key) {
  device.backend.adamw({{weight.matrix, gradient.matrix, &moments, o.weight_decay, key}}, options_of(o));
}

HostMoments moments_of(Device& device, const Moments& moments) {
  HostMoments host = device.backend.get_moments(moments);
  for (const auto* part : {&host.first, &host.second, &host.first_scales, &host.second_scales}) device.note(*part);
  return host;
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

// A step after moments were read and written elsewhere is the step that would have come.
void check_moments(Device& device, DType dtype, MomentsFormat format) {
  Random random(23);
  const std::int64_t count = 9'001;
  const Tensor weight = device.random(random, 1, count, dtype), copy = device.output(1, count, dtype);
  Moments moments = device.backend.make_moments(format, count);
  expect(moments.format == format, "the moments have another format");
  const HostMoments none = moments_of(device, moments);
  expect_close("new moments", doubles(none.first), std::vector<double>(count), 0);
  expect_close("new moments", doubles(none.second), std::vector<double>(count), 0);
  reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 1};
  step(device, weight, device.random(random, 1, count, DType::f32), moments, o, 5);

  device.backend.copy(copy.buffer.data(), weight.buffer.data(), weight.matrix.bytes());
  Moments restored = device.backend.make_moments(format, count);
  device.backend.set_moments(restored, moments_of(device, moments));
  const Tensor gradient = device.random(random, 1, count, DType::f32);
  o.step = 2;
  step(device, weight, gradient, moments, o, 6);
  step(device, copy, gradient, restored, o, 6);
  expect(device.read(weight) == device.read(copy), "a step from restored moments gave other weights");
  const HostMoments want = moments_of(device, moments), got = moments_of(device, restored);
  expect(got.first == want.first && got.second == want.second, "a step from restored moments gave other moments");
  expect(got.first_scales == want.first_scales && got.second_scales == want.second_scales,
         "a step from restored moments gave other scales");
}

// Numbers from elsewhere, without scales, come back as near as the format holds them.
void check_foreign_moments(Device& device, DType, MomentsFormat format, double tolerance) {
  Random random(24);
  HostMoments host;
  for (const double value : random.normals(5'000, 1e-3)) {
    host.first.push_back(static_cast<float>(value));
    host.second.push_back(static_cast<float>(value * value));
  }
  std::fill(host.first.begin() + 512, host.first.begin() + 768, 0.0f);  // a block of zeros
  Moments moments = device.backend.make_moments(format, 5'000);
  device.backend.set_moments(moments, host);
  const HostMoments got = moments_of(device, moments);
  expect_close("first", doubles(got.first), doubles(host.first), tolerance);
  expect_close("second", doubles(got.second), doubles(host.second), tolerance);
}

// Steps of a few percent: those of f32 as far as the formats' resolution lets one see.
void check_narrow_adamw(Device& device, DType dtype, MomentsFormat format) {
  Random random(25);
  const std::int64_t count = 20'011;
  const Tensor weight = device.random(random, 1, count, dtype);
  Moments moments = device.backend.make_moments(format, count);
  std::vector<double> want = weight.values, want_first(count), want_second(count);
  for (std::int64_t number = 1; number <= 6; ++number) {
    const Tensor gradient = device.random(random, 1, count, DType::f32);
    const reference::AdamW o{1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, number};
    step(device, weight, gradient, moments, o, static_cast<std::uint64_t>(number));
    reference::adamw(o, gradient.values, want, want_first, want_second);
  }
  std::vector<double> moved = device.read(weight), difference;
  double distance = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference.push_back(moved[i] - want[i]);
    distance += std::pow(want[i] - weight.values[i], 2);
  }
  // bf16 weights are off by their own resolution beside.
  const double own = dtype == DType::bf16 ? 6e-3 * std::sqrt(static_cast<double>(count)) : 0;
  const double off = std::sqrt(dot(difference, difference));
  expect(off < 0.08 * std::sqrt(distance) + own, "the steps are off by " + std::to_string(off / std::sqrt(distance)));
  const HostMoments got = moments_of(device, moments);
  double bias = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    bias += got.second[i] - want_second[i];
    size += want_second[i];
  }
  expect(std::abs(bias) < 0.01 * size, "the second moments drift by " + std::to_string(bias / size));
}

void check_adamw(Device& device, DType dtype) {
  Random random(22);
  const std::int64_t count = 20'011;
  const Tensor weight = device.random(random, 1, count, dtype);
  Moments moments = device.backend.make_moments(MomentsFormat::f32, count);
  std::vector<double> want = weight.values, want_first(count), want_second(count);
  for (std::int64_t number = 1; number <= 3; ++number) {
    const Tensor gradient = device.random(random, 1, count, DType::f32, number == 2 ? 1e-6 : 1);
    const reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, number};
    step(device, weight, gradient, moments, o, static_cast<std::uint64_t>(number));
    reference::adamw(o, gradient.values, want, want_first, want_second);
  }
  // Stochastic rounding goes to a neighbour: a step of bf16, 1/128 at most, each time.
  expect_close("weight", device.read(weight), want, dtype == DType::f32 ? 1e-5 : 3.0 / 128);
  const HostMoments got = moments_of(device, moments);
  expect_close("first", doubles(got.first), want_first, 1e-5);
  expect_close("second", doubles(got.second), want_second, 1e-5);
}

// What a step over many tensors does to one is what a step of it alone does, bit for bit: whatever stands beside it, of
// other sizes, dtypes and formats of moments. Sums over them are the sums of each.
void check_many_tensors(Device& device, DType dtype) {
  Random random(26);
  struct One {
    Tensor weight, copy, gradient;
    Moments moments, own;
  };
  const reference::AdamW o{3e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 1};
  constexpr MomentsFormat kFormats[] = {MomentsFormat::f32, MomentsFormat::bf16, MomentsFormat::blocks8};
  std::vector<One> all;
  for (const std::int64_t count : {5'000, 1, 0, 70'001, 256, 4'096, 4'097, 131'072, 3}) {
    const DType other = all.size() % 4 == 3 ? DType::f32 : dtype;
    const MomentsFormat format = kFormats[all.size() % 3];
    One one{device.random(random, 1, count, other), device.output(1, count, other),
            device.random(random, 1, count, DType::f32), device.backend.make_moments(format, count),
            device.backend.make_moments(format, count)};
    device.backend.copy(one.copy.buffer.data(), one.weight.buffer.data(), one.weight.matrix.bytes());
    all.push_back(std::move(one));
  }
  std::vector<AdamWTensor> tensors;
  std::vector<Matrix> gradients;
  double sum = 0;
  for (One& one : all) {
    const auto number = static_cast<std::uint64_t>(tensors.size());
    const double decay = number % 2 == 0 ? 0.1 : 0;
    tensors.push_back({one.weight.matrix, one.gradient.matrix, &one.moments, decay, number});
    gradients.push_back(one.gradient.matrix);
    sum += device.backend.sum_of_squares({one.gradient.matrix});
    device.backend.adamw({{one.copy.matrix, one.gradient.matrix, &one.own, decay, number}}, options_of(o));
  }
  device.backend.adamw(tensors, options_of(o));
  const double together = device.backend.sum_of_squares(gradients);
  expect(together == sum, "the sum over all tensors is not that of each");
  device.note(std::vector<double>{together});
  for (One& one : all) {
    expect(device.read(one.weight) == device.read(one.copy), "a tensor among others gets another weight");
    const HostMoments got = moments_of(device, one.moments), want = moments_of(device, one.own);
    expect(got.first == want.first && got.second == want.second && got.first_scales == want.first_scales &&
               got.second_scales == want.second_scales,
           "a tensor among others gets other moments");
  }
  expect(device.backend.sum_of_squares({}) == 0, "the sum of nothing");
  device.backend.adamw({}, options_of(o));
}

// Updates far below bf16's resolution must move the mean as far as they would in f32.
void check_stochastic_rounding(Device& device, DType dtype) {
  if (dtype != DType::bf16) return device.note(std::vector<int>{1});
  const std::int64_t count = 1 << 16;
  const Tensor weight = device.upload(1, count, dtype, std::vector<double>(count, 1.0));
  const Tensor gradient = device.upload(1, count, DType::f32, std::vector<double>(count, 1.0));
  Moments moments = device.backend.make_moments(MomentsFormat::f32, count);
  const reference::AdamW o{1e-4, 0.9, 0.999, 1e-8, 0, 1, 1};
  step(device, weight, gradient, moments, o, 77);
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
      {"adamw of many tensors", check_many_tensors},
      {"moments", [](Device& device, DType dtype) { check_moments(device, dtype, MomentsFormat::f32); }},
      {"moments in bf16", [](Device& device, DType dtype) { check_moments(device, dtype, MomentsFormat::bf16); }},
      {"moments in 8 bits", [](Device& device, DType dtype) { check_moments(device, dtype, MomentsFormat::blocks8); }},
      {"foreign moments in bf16",
       [](Device& device, DType dtype) { check_foreign_moments(device, dtype, MomentsFormat::bf16, 4e-3); }},
      {"foreign moments in 8 bits",
       [](Device& device, DType dtype) { check_foreign_moments(device, dtype, MomentsFormat::blocks8, 0.03); }},
      {"adamw with moments in bf16",
       [](Device& device, DType dtype) { check_narrow_adamw(device, dtype, MomentsFormat::bf16); }},
      {"adamw with moments in 8 bits",
       [](Device& device, DType dtype) { check_narrow_adamw(device, dtype, MomentsFormat::blocks8); }},
      {"stochastic rounding", check_stochastic_rounding},
  };
}

}  // namespace tempora::test
