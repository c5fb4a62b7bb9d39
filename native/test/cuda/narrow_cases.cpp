#include "narrow_cases.h"

#include <string>
#include <utility>

#include "../reference.h"

namespace tempora::test {
namespace {

constexpr std::int64_t kRows = 150;

// Rows that lie apart, as those of a part of a matrix do.
Matrix within(const Tensor& around) { return around.matrix.column_range(8, around.matrix.cols - 24); }

void check_row_product(Device& device, DType dtype, std::int64_t rank, std::int64_t k) {
  Random random(56);
  const Tensor around = device.random(random, kRows, k + 24, dtype), a = device.random(random, rank, k, DType::f32);
  const auto weight = device.weight(a);
  const Tensor wide = device.output(kRows, k, DType::f32), u = device.output(kRows, rank, DType::f32);
  device.backend.dropout(within(around), {}, wide.matrix);
  std::vector<double> want = reference::matmul(device.read(wide), false, a.values, true, kRows, rank, k);
  for (double& value : want) value *= 1.75;
  const bool there = device.backend.narrow_row_product(within(around), *weight, 1.75f, u.matrix);
  expect(there == (dtype == DType::bf16), "tensor cores take bf16, and f32 goes by parts");
  if (!there) return;
  const std::vector<double> got = device.read(u);
  expect_close("narrow", got, want, tolerance_of(DType::f32));
  const Tensor alone = device.output(1, rank, DType::f32);
  device.backend.narrow_row_product(within(around).row_range(97, 1), *weight, 1.75f, alone.matrix);
  const std::vector<double> row(got.begin() + 97 * rank, got.begin() + 98 * rank);
  expect(device.read(alone) == row, "a row alone differs from the same row among 150");
}

void check_input_gradient(Device& device, DType dtype, std::int64_t rank, std::int64_t k) {
  Random random(57);
  const Tensor d_u = device.random(random, kRows, rank, DType::f32), a = device.random(random, rank, k, DType::f32);
  const auto weight = device.weight(a);
  const std::vector<double> product = reference::matmul(d_u.values, false, a.values, false, kRows, k, rank);
  const Tensor ones = device.upload(kRows, k, dtype, std::vector<double>(static_cast<std::size_t>(kRows * k), 1.0));
  const Tensor mask = device.output(kRows, k, DType::f32);
  for (const Dropout& dropout : {Dropout{}, Dropout{.rate = 0.3f, .key = 5, .first_row = 11}}) {
    device.backend.dropout(ones.matrix, dropout, mask.matrix);
    const std::vector<double> kept = device.read(mask);
    const Tensor d_x = device.random(random, kRows, k, dtype);
    std::vector<double> want = d_x.values;
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += product[i] * kept[i];
    expect(device.backend.narrow_input_gradient(d_u.matrix, *weight, dropout, d_x.matrix), "not in one pass");
    expect_close("d_x", device.read(d_x), want, tolerance_of(dtype));
  }
}

}  // namespace

std::vector<OpCase> narrow_cases() {
  std::vector<OpCase> cases;
  for (const auto& [rank, k] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{4, 8}, {16, 200}, {40, 136}, {64, 1096}}) {
    const std::string shape = ", " + std::to_string(rank) + " of " + std::to_string(k);
    cases.push_back({"narrow row product in one pass" + shape,
                     [=](Device& device, DType dtype) { check_row_product(device, dtype, rank, k); }});
    cases.push_back({"narrow input gradient in one pass" + shape,
                     [=](Device& device, DType dtype) { check_input_gradient(device, dtype, rank, k); }});
  }
  // A rank that is no whole vector is refused whatever else fits, so that the caller puts it together.
  cases.push_back({"narrow products of a rank of 6 are not in one pass", [](Device& device, DType dtype) {
                     Random random(58);
                     const Tensor x = device.random(random, 5, 64, dtype), a = device.random(random, 6, 64, DType::f32);
                     const Tensor u = device.output(5, 6, DType::f32);
                     const auto weight = device.weight(a);
                     expect(!device.backend.narrow_row_product(x.matrix, *weight, 1, u.matrix), "taken");
                     expect(!device.backend.narrow_input_gradient(u.matrix, *weight, {}, x.matrix), "taken");
                     device.read(x);
                   }});
  return cases;
}

}  // namespace tempora::test
