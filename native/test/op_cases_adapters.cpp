#include <cmath>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

void check_no_dropout(Device& device, DType dtype) {
  Random random(51);
  const Tensor x = device.random(random, 13, 37, dtype), out = device.output(13, 37, DType::f32);
  device.backend.dropout(x.matrix, {}, out.matrix);
  expect_close("out", device.read(out), x.values, 0);
  const Tensor d_out = device.random(random, 13, 37, DType::f32), d_x = device.random(random, 13, 37, dtype);
  std::vector<double> want = d_x.values;
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += d_out.values[i];
  device.backend.dropout_backward(d_out.matrix, {}, d_x.matrix);
  expect_close("d_x", device.read(d_x), want, tolerance_of(dtype));
}

// What is dropped is zero, what is kept is scaled, and as much is dropped as was asked for.
void check_dropout(Device& device, DType dtype) {
  const std::int64_t rows = 200, cols = 333;
  Random random(52);
  const Tensor x = device.random(random, rows, cols, dtype), out = device.output(rows, cols, DType::f32);
  const Dropout dropout{.rate = 0.25f, .key = 99, .first_row = 7};
  device.backend.dropout(x.matrix, dropout, out.matrix);
  const std::vector<double> got = device.read(out);
  std::vector<double> want = x.values, mask(got.size());
  std::int64_t dropped = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    mask[i] = got[i] == 0 ? 0 : 1 / 0.75;
    want[i] *= mask[i];
    dropped += got[i] == 0 ? 1 : 0;
  }
  expect_close("out", got, want, 1e-6);
  // The standard deviation of the share is 0.0017.
  const double share = static_cast<double>(dropped) / static_cast<double>(rows * cols);
  expect(std::abs(share - 0.25) < 0.008, "a share of " + std::to_string(share) + " was dropped");

  const Tensor d_out = device.random(random, rows, cols, DType::f32), d_x = device.random(random, rows, cols, dtype);
  std::vector<double> want_gradient = d_x.values;
  for (std::size_t i = 0; i < want_gradient.size(); ++i) want_gradient[i] += d_out.values[i] * mask[i];
  device.backend.dropout_backward(d_out.matrix, dropout, d_x.matrix);
  expect_close("d_x", device.read(d_x), want_gradient, tolerance_of(dtype));

  // A part of the rows, told which they are, loses the same elements.
  const Tensor part = device.output(50, cols, DType::f32);
  device.backend.dropout(x.matrix.row_range(120, 50), {.rate = 0.25f, .key = 99, .first_row = 127}, part.matrix);
  const std::vector<double> same(got.begin() + 120 * cols, got.begin() + 170 * cols);
  expect(device.read(part) == same, "what is dropped depends on where the rows lie");
  const Tensor other = device.output(rows, cols, DType::f32);
  device.backend.dropout(x.matrix, {.rate = 0.25f, .key = 100, .first_row = 7}, other.matrix);
  expect(device.read(other) != got, "another key drops the same elements");
}

void check_scale(Device& device, DType) {
  Random random(53);
  const Tensor x = device.random(random, 21, 35, DType::f32);
  std::vector<double> want = x.values;
  for (double& value : want) value *= 1.75;
  device.backend.scale(x.matrix, 1.75f);
  expect_close("x", device.read(x), want, 1e-7);
}

// A narrow weight of few inputs, as adapters have, by rows: few panels of work for many rows.
void check_narrow_rows(Device& device, DType dtype) {
  Random random(54);
  for (const std::int64_t rank : {1, 3, 16}) {
    const Tensor narrow = device.random(random, 300, rank, DType::f32), b = device.random(random, 75, rank, DType::f32);
    const Tensor a = device.random(random, rank, 75, DType::f32), wide = device.random(random, 300, 75, DType::f32);
    const Tensor up = device.random(random, 300, 75, dtype), down = device.output(300, rank, DType::f32);
    std::vector<double> want = reference::matmul(narrow.values, false, b.values, true, 300, 75, rank);
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += up.values[i];
    device.backend.row_product(narrow.matrix, *device.weight(b), up.matrix, true);
    expect_close("up", device.read(up), want, tolerance_of(dtype));
    const auto handle = device.weight(a);
    device.backend.row_product(wide.matrix, *handle, down.matrix, false);
    const std::vector<double> got = device.read(down);
    expect_close("down", got, reference::matmul(wide.values, false, a.values, true, 300, rank, 75),
                 tolerance_of(DType::f32));
    const Tensor alone = device.output(1, rank, DType::f32);
    device.backend.row_product(wide.matrix.row_range(217, 1), *handle, alone.matrix, false);
    const std::vector<double> row(got.begin() + 217 * rank, got.begin() + 218 * rank);
    expect(device.read(alone) == row, "a row alone differs from the same row among 300");
  }
}

// Both products of an adapter's narrow side, from rows that lie apart, with and without dropout.
void check_narrow_products(Device& device, DType dtype, std::int64_t rows, std::int64_t rank) {
  constexpr std::int64_t k = 75;
  Random random(55);
  const Tensor around = device.random(random, rows, k + 9, dtype), a = device.random(random, rank, k, DType::f32);
  const Tensor b = device.random(random, k, rank, DType::f32), d_u = device.random(random, rows, rank, DType::f32);
  const Matrix x = around.matrix.column_range(4, k);
  for (const Dropout& dropout : {Dropout{}, Dropout{.rate = 0.3f, .key = 5, .first_row = 11}}) {
    const Tensor after = device.output(rows, k, DType::f32);
    device.backend.dropout(x, dropout, after.matrix);
    const std::vector<double> input = device.read(after);
    for (const bool transposed : {false, true}) {
      const Tensor& weight = transposed ? b : a;
      std::vector<double> want = reference::matmul(input, false, weight.values, !transposed, rows, rank, k);
      for (double& value : want) value *= 1.75;
      const Tensor u = device.output(rows, rank, DType::f32);
      device.backend.narrow_product(x, dropout, *device.weight(weight), transposed, 1.75f, u.matrix);
      expect_close("narrow", device.read(u), want, tolerance_of(DType::f32));

      const Tensor gradient = device.random(random, transposed ? k : rank, transposed ? rank : k, DType::f32);
      want = transposed ? reference::matmul(input, true, d_u.values, false, k, rank, rows)
                        : reference::matmul(d_u.values, true, input, false, rank, k, rows);
      for (std::size_t i = 0; i < want.size(); ++i) want[i] += gradient.values[i];
      device.backend.narrow_gradient(x, dropout, d_u.matrix, transposed, gradient.matrix);
      expect_close("gradient", device.read(gradient), want, tolerance_of(DType::f32));
    }
  }
}

}  // namespace

std::vector<OpCase> adapter_cases() {
  return {
      {"no dropout", check_no_dropout},
      {"dropout", check_dropout},
      {"scale", check_scale},
      {"narrow row products", check_narrow_rows},
      {"narrow products 1x1", [](Device& device, DType dtype) { check_narrow_products(device, dtype, 1, 1); }},
      {"narrow products 33x16", [](Device& device, DType dtype) { check_narrow_products(device, dtype, 33, 16); }},
      {"narrow products 700x20", [](Device& device, DType dtype) { check_narrow_products(device, dtype, 700, 20); }},
  };
}

}  // namespace tempora::test
