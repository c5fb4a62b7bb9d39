#include <cmath>
#include <string>
#include <utility>
#include <vector>

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
void check_narrow_rows(Device& device, DType dtype, std::int64_t rank, std::int64_t k) {
  Random random(54);
  const Tensor narrow = device.random(random, 300, rank, DType::f32), b = device.random(random, k, rank, DType::f32);
  const Tensor a = device.random(random, rank, k, DType::f32), wide = device.random(random, 300, k, DType::f32);
  const Tensor up = device.random(random, 300, k, dtype), down = device.output(300, rank, DType::f32);
  std::vector<double> want = reference::matmul(narrow.values, false, b.values, true, 300, k, rank);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += up.values[i];
  const Tensor up_alone = device.output(1, k, dtype);
  device.backend.copy(up_alone.matrix.data, up.matrix.row_range(217, 1).data, up_alone.matrix.bytes());
  const auto b_handle = device.weight(b);
  device.backend.row_product(narrow.matrix, *b_handle, up.matrix, true);
  std::vector<double> got = device.read(up);
  expect_close("up", got, want, tolerance_of(dtype));
  const auto row_of = [&](std::int64_t width) {
    return std::vector<double>(got.begin() + 217 * width, got.begin() + 218 * width);
  };
  device.backend.row_product(narrow.matrix.row_range(217, 1), *b_handle, up_alone.matrix, true);
  expect(device.read(up_alone) == row_of(k), "a wide row alone differs from the same row among 300");

  const auto handle = device.weight(a);
  device.backend.row_product(wide.matrix, *handle, down.matrix, false);
  got = device.read(down);
  expect_close("down", got, reference::matmul(wide.values, false, a.values, true, 300, rank, k),
               tolerance_of(DType::f32));
  const Tensor alone = device.output(1, rank, DType::f32);
  device.backend.row_product(wide.matrix.row_range(217, 1), *handle, alone.matrix, false);
  expect(device.read(alone) == row_of(rank), "a row alone differs from the same row among 300");
}

// Both products of an adapter's narrow side, from rows that lie apart, with and without dropout.
void check_narrow_products(Device& device, DType dtype, std::int64_t rows, std::int64_t rank, std::int64_t k) {
  Random random(55);
  const Tensor around = device.random(random, rows, k + 24, dtype), a = device.random(random, rank, k, DType::f32);
  const Tensor b = device.random(random, k, rank, DType::f32), d_u = device.random(random, rows, rank, DType::f32);
  const Matrix x = around.matrix.column_range(8, k);
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
  std::vector<OpCase> cases = {{"no dropout", check_no_dropout}, {"dropout", check_dropout}, {"scale", check_scale}};
  struct Sizes {
    std::int64_t rows, rank, k;
  };
  // Rows of whole vectors and others, ranks that fill tiles and others, one block and several.
  for (const auto& [rows, rank, k] :
       {Sizes{1, 1, 75}, Sizes{33, 16, 75}, Sizes{700, 20, 75}, Sizes{1, 4, 8}, Sizes{33, 16, 200}, Sizes{700, 20, 328},
        Sizes{130, 64, 136}, Sizes{300, 32, 1096}}) {
    const std::string shape = std::to_string(rows) + "x" + std::to_string(rank) + " of " + std::to_string(k);
    cases.push_back({"narrow products " + shape,
                     [=](Device& device, DType dtype) { check_narrow_products(device, dtype, rows, rank, k); }});
  }
  for (const auto& [rank, k] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 75}, {3, 75}, {16, 75}, {4, 200}, {16, 200}, {40, 136}}) {
    const std::string shape = std::to_string(rank) + " of " + std::to_string(k);
    cases.push_back({"narrow row products " + shape,
                     [=](Device& device, DType dtype) { check_narrow_rows(device, dtype, rank, k); }});
  }
  return cases;
}

}  // namespace tempora::test
