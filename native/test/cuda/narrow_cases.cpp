#include "narrow_cases.h"

#include <string>
#include <utility>

#include "../reference.h"

namespace tempora::test {
namespace {

// Rows that lie apart, as those of a part of a matrix do.
Matrix within(const Tensor& around) { return around.matrix.column_range(8, around.matrix.cols - 24); }

void check_adapter_rows(Device& device, DType dtype, std::int64_t rows, std::int64_t rank, std::int64_t k) {
  constexpr std::int64_t n = 88;
  Random random(56);
  const Tensor around = device.random(random, rows, k + 24, dtype), a = device.random(random, rank, k, DType::f32);
  const Tensor b = device.random(random, n, rank, DType::f32), out = device.random(random, rows, n, dtype);
  const auto a_weight = device.weight(a), b_weight = device.weight(b);
  const Tensor wide = device.output(rows, k, DType::f32), alone = device.output(1, n, dtype);
  const std::int64_t one = rows * 2 / 3;
  device.backend.copy(alone.matrix.data, out.matrix.row_range(one, 1).data, alone.matrix.bytes());
  device.backend.dropout(within(around), {}, wide.matrix);
  const std::vector<double> u = reference::matmul(device.read(wide), false, a.values, true, rows, rank, k);
  const std::vector<double> product = reference::matmul(u, false, b.values, true, rows, n, rank);
  std::vector<double> want = out.values;
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += 1.75 * product[i];
  const bool there = device.backend.adapter_rows(within(around), *a_weight, 1.75f, *b_weight, out.matrix);
  expect(there == (dtype == DType::bf16), "tensor cores take bf16, and f32 goes by parts");
  if (!there) return;
  const std::vector<double> got = device.read(out);
  expect_close("out", got, want, tolerance_of(dtype));
  device.backend.adapter_rows(within(around).row_range(one, 1), *a_weight, 1.75f, *b_weight, alone.matrix);
  const std::vector<double> row(got.begin() + one * n, got.begin() + (one + 1) * n);
  expect(device.read(alone) == row, "a row alone differs from the same row among others");
}

void check_input_gradient(Device& device, DType dtype, std::int64_t rank, std::int64_t k) {
  constexpr std::int64_t kRows = 150;
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
    // Of so few rows that the second product adds up the first's splits, and of more.
    for (const std::int64_t rows : {150, 600}) {
      cases.push_back({"narrow products of " + std::to_string(rows) + " rows in one pass" + shape,
                       [=](Device& device, DType dtype) { check_adapter_rows(device, dtype, rows, rank, k); }});
    }
    cases.push_back({"narrow input gradient in one pass" + shape,
                     [=](Device& device, DType dtype) { check_input_gradient(device, dtype, rank, k); }});
  }
  // A grid has at least one block.
  cases.push_back({"narrow products of no rows", [](Device& device, DType dtype) {
                     Random random(59);
                     const Tensor a = device.random(random, 16, 64, DType::f32),
                                  b = device.random(random, 64, 16, DType::f32);
                     const Tensor x = device.random(random, 1, 64, dtype), u = device.random(random, 1, 16, DType::f32);
                     const auto weight = device.weight(a), up = device.weight(b);
                     const Matrix none = x.matrix.row_range(0, 0);
                     device.backend.narrow_product(none, {}, *weight, false, 1, u.matrix.row_range(0, 0));
                     device.backend.adapter_rows(none, *weight, 1, *up, none);
                     device.backend.narrow_input_gradient(u.matrix.row_range(0, 0), *weight, {}, none);
                     expect(device.read(x) == x.values, "a row that was none of them changed");
                   }});
  // A rank that is no whole vector is refused whatever else fits, so that the caller puts it together.
  cases.push_back({"narrow products of a rank of 6 are not in one pass", [](Device& device, DType dtype) {
                     Random random(58);
                     const Tensor x = device.random(random, 5, 64, dtype), a = device.random(random, 6, 64, DType::f32);
                     const Tensor u = device.random(random, 5, 6, DType::f32),
                                  b = device.random(random, 64, 6, DType::f32);
                     const auto weight = device.weight(a), up = device.weight(b);
                     expect(!device.backend.adapter_rows(x.matrix, *weight, 1, *up, x.matrix), "taken");
                     expect(!device.backend.narrow_input_gradient(u.matrix, *weight, {}, x.matrix), "taken");
                     device.read(x);
                   }});
  return cases;
}

}  // namespace tempora::test
