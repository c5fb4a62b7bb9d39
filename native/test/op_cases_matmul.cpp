#include <cmath>
#include <cstring>

#include "backend/gguf_blocks.h"
#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

void check_matmul(Device& device, DType in, DType out, std::int64_t m, std::int64_t n, std::int64_t k,
                  MatmulOptions options) {
  Random random(17);
  const Tensor a = device.random(random, options.transpose_a ? k : m, options.transpose_a ? m : k, in);
  const Tensor b = device.random(random, options.transpose_b ? n : k, options.transpose_b ? k : n, in);
  const Tensor c = options.accumulate ? device.random(random, m, n, out) : device.output(m, n, out);
  device.backend.matmul(a.matrix, b.matrix, c.matrix, options);
  std::vector<double> want = reference::matmul(a.values, options.transpose_a, b.values, options.transpose_b, m, n, k);
  if (options.accumulate) {
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += c.values[i];
  }
  expect_close("c", device.read(c), want, tolerance_of(out));
}

// A matrix in the middle of a wider one, and whether what lies beside it is still as it was.
struct Inside {
  Inside(Device& device, Random& random, std::int64_t rows, std::int64_t cols, DType dtype)
      : wide(device.random(random, rows, cols + kLeft + kRight, dtype)), matrix(wide.matrix.column_range(kLeft, cols)) {
    for (std::size_t i = 0; i < wide.values.size(); ++i) {
      if (is_inside(i)) values.push_back(wide.values[i]);
    }
  }

  void expect_frame_untouched(Device& device) const {
    const std::vector<double> after = device.read(wide);
    for (std::size_t i = 0; i < after.size(); ++i) {
      expect(is_inside(i) || after[i] == wide.values[i], "a number beside the result was written");
    }
  }

  Tensor wide;
  Matrix matrix;
  std::vector<double> values;

 private:
  static constexpr std::int64_t kLeft = 8, kRight = 5;

  bool is_inside(std::size_t i) const {
    const std::int64_t column = static_cast<std::int64_t>(i) % wide.matrix.cols;
    return column >= kLeft && column < wide.matrix.cols - kRight;
  }
};

void check_rows_apart(Device& device, DType in, DType out, std::int64_t k, MatmulOptions options) {
  const std::int64_t m = 37, n = 51;
  Random random(18);
  const Inside a(device, random, options.transpose_a ? k : m, options.transpose_a ? m : k, in);
  const Inside b(device, random, options.transpose_b ? n : k, options.transpose_b ? k : n, in);
  const Inside c(device, random, m, n, out);
  device.backend.matmul(a.matrix, b.matrix, c.matrix, options);
  std::vector<double> want = reference::matmul(a.values, options.transpose_a, b.values, options.transpose_b, m, n, k);
  if (options.accumulate) {
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += c.values[i];
  }
  expect_close("c", device.read(c.matrix), want, tolerance_of(out));
  c.expect_frame_untouched(device);
}

// The products of a weight: forward, by rows, back to its input, and its gradient.
void check_weight(Device& device, DType dtype, std::int64_t rows, std::int64_t n, std::int64_t k) {
  Random random(19);
  const Tensor numbers = device.random(random, n, k, dtype);
  const auto weight = device.weight(numbers);
  const Inside x(device, random, rows, k, dtype), d_out(device, random, rows, n, dtype);
  for (const DType result : {dtype, DType::f32}) {
    for (const bool accumulate : {false, true}) {
      const auto sum = [&](std::vector<double> want, const Inside& before) {
        for (std::size_t i = 0; i < want.size() && accumulate; ++i) want[i] += before.values[i];
        return want;
      };
      const Inside out(device, random, rows, n, result), by_rows(device, random, rows, n, result);
      const Inside d_x(device, random, rows, k, result);
      device.backend.product(x.matrix, *weight, out.matrix, accumulate);
      device.backend.row_product(x.matrix, *weight, by_rows.matrix, accumulate);
      device.backend.transposed_product(d_out.matrix, *weight, d_x.matrix, accumulate);
      const auto forward = reference::matmul(x.values, false, numbers.values, true, rows, n, k);
      const auto backward = reference::matmul(d_out.values, false, numbers.values, false, rows, k, n);
      expect_close("product", device.read(out.matrix), sum(forward, out), tolerance_of(result));
      expect_close("row product", device.read(by_rows.matrix), sum(forward, by_rows), tolerance_of(result));
      expect_close("transposed product", device.read(d_x.matrix), sum(backward, d_x), tolerance_of(result));
      for (const Inside* written : {&out, &by_rows, &d_x}) written->expect_frame_untouched(device);
    }
  }
  std::vector<double> want = reference::matmul(d_out.values, true, x.values, false, n, k, rows);
  const Tensor written = device.output(n, k, DType::f32), gradient = device.random(random, n, k, DType::f32);
  device.backend.gradient_product(d_out.matrix, x.matrix, written.matrix, false);
  expect_close("written gradient", device.read(written), want, tolerance_of(DType::f32));
  device.backend.gradient_product(d_out.matrix, x.matrix, gradient.matrix, true);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += gradient.values[i];
  expect_close("gradient", device.read(gradient), want, tolerance_of(DType::f32));
}

// Several products of one x at once, and the way back through them.
void check_products(Device& device, DType dtype, std::int64_t rows, std::int64_t k,
                    const std::vector<std::int64_t>& ns) {
  Random random(24);
  const Inside x(device, random, rows, k, dtype);
  std::vector<Tensor> numbers;
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<Inside> outs, d_outs;
  std::vector<Tensor> gradients;
  std::vector<WeightProduct> products;
  std::vector<TransposedProduct> back;
  std::vector<GradientProduct> to_weights;
  std::vector<std::optional<double>> squares(ns.size());
  std::vector<double> d_x_want(static_cast<std::size_t>(rows * k));
  for (const std::int64_t n : ns) {
    numbers.push_back(device.random(random, n, k, dtype));
    weights.push_back(device.weight(numbers.back()));
    outs.emplace_back(device, random, rows, n, dtype);
    d_outs.emplace_back(device, random, rows, n, dtype);
    gradients.push_back(device.random(random, n, k, DType::f32));
    products.push_back({*weights.back(), outs.back().matrix});
    back.push_back({d_outs.back().matrix, *weights.back()});
    const std::size_t index = to_weights.size();
    to_weights.push_back({d_outs.back().matrix, gradients.back().matrix, index % 2 == 0, &squares[index]});
    const auto part = reference::matmul(d_outs.back().values, false, numbers.back().values, false, rows, k, n);
    for (std::size_t i = 0; i < part.size(); ++i) d_x_want[i] += part[i];
  }
  const Inside d_x(device, random, rows, k, DType::f32);
  device.backend.products(x.matrix, products);
  device.backend.transposed_products(back, d_x.matrix);
  device.backend.gradient_products(x.matrix, to_weights);
  expect_close("d_x", device.read(d_x.matrix), d_x_want, tolerance_of(DType::f32));
  d_x.expect_frame_untouched(device);
  for (std::size_t i = 0; i < ns.size(); ++i) {
    expect_close("product", device.read(outs[i].matrix),
                 reference::matmul(x.values, false, numbers[i].values, true, rows, ns[i], k), tolerance_of(dtype));
    outs[i].expect_frame_untouched(device);
    std::vector<double> want = reference::matmul(d_outs[i].values, true, x.values, false, ns[i], k, rows);
    for (std::size_t j = 0; j < want.size() && i % 2 == 0; ++j) want[j] += gradients[i].values[j];
    const std::vector<double> gradient = device.read(gradients[i]);
    expect_close("gradient", gradient, want, tolerance_of(DType::f32));
    // Only some backends know them.
    if (!squares[i]) continue;
    expect_close("squares", {*squares[i]}, {dot(gradient, gradient)}, 1e-6);
    device.note(std::vector<double>{*squares[i]});
  }
}

// x · weightᵀ onto what is kept, and onto itself.
void check_residual_product(Device& device, DType dtype, std::int64_t rows, std::int64_t n, std::int64_t k) {
  Random random(25);
  const Tensor x = device.random(random, rows, k, dtype), numbers = device.random(random, n, k, dtype);
  const Tensor residual = device.random(random, rows, n, DType::f32), out = device.output(rows, n, DType::f32);
  const auto weight = device.weight(numbers);
  std::vector<double> want = reference::matmul(x.values, false, numbers.values, true, rows, n, k);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += residual.values[i];
  device.backend.residual_product(x.matrix, {*weight, out.matrix}, residual.matrix);
  expect_close("out", device.read(out), want, tolerance_of(DType::f32));
  expect_close("residual", device.read(residual), residual.values, 0);
  device.backend.residual_product(x.matrix, {*weight, residual.matrix}, residual.matrix);
  expect_close("in place", device.read(residual), want, tolerance_of(DType::f32));
}

// An f32 term of a low rank beside each product, and beside the way back.
void check_narrow_terms(Device& device, DType dtype, std::int64_t rows, std::int64_t k,
                        const std::vector<std::int64_t>& ns) {
  Random random(26);
  const Inside x(device, random, rows, k, dtype);
  const Tensor residual = device.random(random, rows, ns[0], DType::f32), sum = device.output(rows, ns[0], DType::f32);
  std::vector<Tensor> kept;
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<Inside> outs;
  std::vector<WeightProduct> products;
  std::vector<TransposedProduct> back;
  std::vector<std::vector<double>> wants;
  std::vector<double> first_want, d_x_want(static_cast<std::size_t>(rows * k));
  const auto random_weight = [&](std::int64_t n, std::int64_t m, DType type) -> const Tensor& {
    kept.push_back(device.random(random, n, m, type));
    weights.push_back(device.weight(kept.back()));
    return kept.back();
  };
  const auto add = [](std::vector<double>& to, const std::vector<double>& part) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += part[i];
  };
  kept.reserve(5 * ns.size());
  for (const std::int64_t n : ns) {
    const std::int64_t rank = n % 3 == 0 ? 16 : 5;
    const Tensor &w = random_weight(n, k, dtype), &b = random_weight(n, rank, DType::f32);
    const Tensor& a = random_weight(rank, k, DType::f32);
    const Weight &w_weight = *weights.end()[-3], &b_weight = *weights.end()[-2], &a_weight = *weights.end()[-1];
    kept.push_back(device.random(random, rows, rank, DType::f32));
    const Tensor& u = kept.back();
    kept.push_back(device.random(random, rows, n, dtype));
    const Tensor& d_out = kept.back();
    outs.emplace_back(device, random, rows, n, dtype);
    products.push_back({w_weight, outs.back().matrix, {u.matrix, &b_weight}});
    back.push_back({d_out.matrix, w_weight, {u.matrix, &a_weight}});
    wants.push_back(reference::matmul(x.values, false, w.values, true, rows, n, k));
    add(wants.back(), reference::matmul(u.values, false, b.values, true, rows, n, rank));
    add(d_x_want, reference::matmul(d_out.values, false, w.values, false, rows, k, n));
    add(d_x_want, reference::matmul(u.values, false, a.values, false, rows, k, rank));
    if (outs.size() == 1) first_want = d_x_want;
  }
  device.backend.products(x.matrix, products);
  for (std::size_t i = 0; i < ns.size(); ++i) {
    expect_close("product", device.read(outs[i].matrix), wants[i], 2 * tolerance_of(dtype));
    outs[i].expect_frame_untouched(device);
  }
  add(wants[0], residual.values);
  device.backend.residual_product(x.matrix, {products[0].weight, sum.matrix, products[0].narrow}, residual.matrix);
  expect_close("onto a residual", device.read(sum), wants[0], tolerance_of(DType::f32));
  if (!device.backend.takes_narrow_terms(dtype)) return;
  const Inside d_x(device, random, rows, k, DType::f32);
  device.backend.transposed_products(back, d_x.matrix);
  expect_close("d_x", device.read(d_x.matrix), d_x_want, tolerance_of(DType::f32));
  d_x.expect_frame_untouched(device);
  const Inside first(device, random, rows, k, dtype);
  device.backend.transposed_products({back[0]}, first.matrix);
  expect_close("d_x of one", device.read(first.matrix), first_want, 2 * tolerance_of(dtype));
  first.expect_frame_untouched(device);
}

// What a backend made from a weight must not outlive its numbers.
void check_changed_weight(Device& device, DType dtype) {
  Random random(20);
  const Tensor before = device.random(random, 40, 24, dtype), after = device.random(random, 40, 24, dtype);
  const Tensor x = device.random(random, 3, 24, dtype), out = device.output(3, 40, DType::f32);
  const auto weight = device.weight(before);
  device.backend.row_product(x.matrix, *weight, out.matrix, false);
  device.backend.copy(weight->storage.data(), after.buffer.data(), after.matrix.bytes());
  weight->changed();
  device.backend.row_product(x.matrix, *weight, out.matrix, false);
  expect_close("out", device.read(out), reference::matmul(x.values, false, after.values, true, 3, 40, 24),
               tolerance_of(DType::f32));
}

// A quantised weight multiplies as the numbers that it stands for.
void check_multiplies(Device& device, DType dtype, std::int64_t rows, const Weight& weight) {
  Random random(22);
  const std::int64_t n = weight.rows, k = weight.cols;
  const std::vector<std::uint8_t> bytes = device.backend.get_weight(weight, DType::f32);
  std::vector<float> stood_for(static_cast<std::size_t>(n * k));
  std::memcpy(stood_for.data(), bytes.data(), bytes.size());
  std::vector<double> values;
  for (const float value : stood_for) values.push_back(round_to(dtype, value));
  const Inside x(device, random, rows, k, dtype), d_out(device, random, rows, n, dtype);
  const auto forward = reference::matmul(x.values, false, values, true, rows, n, k);
  for (const DType result : {dtype, DType::f32}) {
    const Inside out(device, random, rows, n, result), by_rows(device, random, rows, n, result);
    const Inside d_x(device, random, rows, k, result);
    device.backend.product(x.matrix, weight, out.matrix, false);
    device.backend.row_product(x.matrix, weight, by_rows.matrix, false);
    device.backend.transposed_product(d_out.matrix, weight, d_x.matrix, false);
    expect_close("product", device.read(out.matrix), forward, tolerance_of(result));
    expect_close("row product", device.read(by_rows.matrix), forward, tolerance_of(result));
    expect_close("transposed product", device.read(d_x.matrix),
                 reference::matmul(d_out.values, false, values, false, rows, k, n), tolerance_of(result));
    for (const Inside* written : {&out, &by_rows, &d_x}) written->expect_frame_untouched(device);
  }
  // An adapter's part beside it, where it is one of several and where it is added.
  const Tensor b = device.random(random, n, 5, DType::f32), u = device.random(random, rows, 5, DType::f32);
  const auto b_weight = device.weight(b);
  const NarrowTerm narrow{u.matrix, b_weight.get()};
  std::vector<double> want = forward, part = reference::matmul(u.values, false, b.values, true, rows, n, 5);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += part[i];
  const Inside plain(device, random, rows, n, dtype), added(device, random, rows, n, dtype);
  device.backend.products(x.matrix, {{weight, plain.matrix}, {weight, added.matrix, narrow}});
  expect_close("of several", device.read(plain.matrix), forward, tolerance_of(dtype));
  expect_close("with a narrow term", device.read(added.matrix), want, 2 * tolerance_of(dtype));
  const Tensor residual = device.random(random, rows, n, DType::f32);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += residual.values[i];
  device.backend.residual_product(x.matrix, {weight, residual.matrix, narrow}, residual.matrix);
  expect_close("onto a residual", device.read(residual), want, tolerance_of(DType::f32));
  if (device.backend.takes_narrow_terms(dtype)) {
    const Tensor a = device.random(random, 5, k, DType::f32);
    const auto a_weight = device.weight(a);
    std::vector<double> back = reference::matmul(d_out.values, false, values, false, rows, k, n);
    for (double& value : back) value *= 2;
    part = reference::matmul(u.values, false, a.values, false, rows, k, 5);
    for (std::size_t i = 0; i < back.size(); ++i) back[i] += part[i];
    const Inside d_x(device, random, rows, k, DType::f32);
    device.backend.transposed_products({{d_out.matrix, weight, {u.matrix, a_weight.get()}}, {d_out.matrix, weight}},
                                       d_x.matrix);
    expect_close("back through two", device.read(d_x.matrix), back, tolerance_of(DType::f32));
    d_x.expect_frame_untouched(device);
  }
  const Tensor together = device.output(rows, n, DType::f32), alone = device.output(1, n, DType::f32);
  device.backend.row_product(x.matrix, weight, together.matrix, false);
  device.backend.row_product(x.matrix.row_range(rows - 1, 1), weight, alone.matrix, false);
  const std::vector<double> all = device.read(together);
  const std::vector<double> last(all.end() - n, all.end());
  expect(device.read(alone) == last, "a row alone differs from the same row among others");
}

void check_nf4(Device& device, DType dtype, std::int64_t rows, std::int64_t n, std::int64_t k) {
  Random random(21);
  std::vector<float> numbers;
  for (const double value : random.normals(n * k, 0.1)) numbers.push_back(static_cast<float>(value));
  const auto weight = device.backend.make_weight(WeightFormat::nf4, n, k);
  expect(device.backend.set_weight(*weight, DType::f32, reinterpret_cast<const std::uint8_t*>(numbers.data())),
         "finite numbers were refused");
  check_multiplies(device, dtype, rows, *weight);
  numbers.back() = std::nanf("");
  expect(!device.backend.set_weight(*weight, DType::f32, reinterpret_cast<const std::uint8_t*>(numbers.data())),
         "a number that is not finite was taken");
}

// Blocks of any bits with scales of at most 2⁻⁵.
void check_gguf(Device& device, DType dtype, WeightFormat format, std::int64_t rows, std::int64_t n, std::int64_t k) {
  Random random(23);
  const auto weight = device.backend.make_weight(format, n, k);
  const GgufBlock block = gguf_block(format);
  std::vector<std::uint8_t> bytes;
  for (const std::int32_t byte : random.tokens(n * k / block.numbers * block.bytes, 256)) {
    bytes.push_back(static_cast<std::uint8_t>(byte));
  }
  const auto high_byte = [&](std::size_t at, int half) -> std::uint8_t& {
    return bytes[at + static_cast<std::size_t>(block.first_half + 2 * half) + 1];
  };
  for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(block.bytes)) {
    for (int half = 0; half < block.halves; ++half) high_byte(at, half) &= 0xA7;
  }
  expect(device.backend.set_weight_blocks(*weight, bytes.data()), "finite blocks were refused");
  check_multiplies(device, dtype, rows, *weight);
  high_byte(bytes.size() - static_cast<std::size_t>(block.bytes), block.halves - 1) |= 0x7C;
  expect(!device.backend.set_weight_blocks(*weight, bytes.data()), "a scale that is not finite was taken");
}

struct Shape {
  std::int64_t m, n, k;
};

void add_product_cases(std::vector<OpCase>& cases) {
  for (const std::int64_t rows : {45, 410}) {
    cases.push_back({"products of one x, " + std::to_string(rows) + " rows", [rows](Device& device, DType dtype) {
                       check_products(device, dtype, rows, 66, {70, 34, 36});
                       check_products(device, dtype, rows, 33, {34, 36});
                       check_products(device, dtype, rows, 24, {51, 40, 3});
                     }});
  }
  cases.push_back({"products of one x, gradients of many numbers", [](Device& device, DType dtype) {
                     check_products(device, dtype, 2101, 34, {33, 130});
                   }});
  cases.push_back({"products of one x, back from many", [](Device& device, DType dtype) {
                     check_products(device, dtype, 34, 38, {1100, 1410});
                   }});
  cases.push_back({"products with narrow terms", [](Device& device, DType dtype) {
                     check_narrow_terms(device, dtype, 45, 66, {70, 33, 36});
                     check_narrow_terms(device, dtype, 410, 33, {36});
                     check_narrow_terms(device, dtype, 37, 38, {1100, 1410});
                     check_narrow_terms(device, dtype, 24, 24, {51, 3});
                   }});
  for (const Shape s : {Shape{45, 130, 66}, Shape{3, 51, 24}, Shape{40, 33, 2200}}) {
    cases.push_back({"residual product " + std::to_string(s.n) + "x" + std::to_string(s.k),
                     [s](Device& device, DType dtype) { check_residual_product(device, dtype, s.m, s.n, s.k); }});
  }
}

}  // namespace

std::vector<OpCase> matmul_cases() {
  std::vector<OpCase> cases;
  for (const Shape s : {Shape{37, 51, 24}, Shape{1, 511, 80}, Shape{5, 1, 3}, Shape{130, 96, 129}, Shape{133, 40, 16},
                        Shape{1, 1, 1}, Shape{47, 70, 66}, Shape{450, 99, 34}, Shape{33, 40, 2150}}) {
    const std::string size = std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k);
    cases.push_back({"matmul " + size, [s](Device& device, DType dtype) {
                       for (int bits = 0; bits < 8; ++bits) {
                         const MatmulOptions options{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
                         check_matmul(device, dtype, dtype, s.m, s.n, s.k, options);
                         if (dtype != DType::f32) check_matmul(device, dtype, DType::f32, s.m, s.n, s.k, options);
                       }
                     }});
  }
  cases.push_back({"matmul of rows apart", [](Device& device, DType dtype) {
                     for (int bits = 0; bits < 8; ++bits) {
                       const MatmulOptions options{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
                       for (const std::int64_t k : {24, 38}) {
                         check_rows_apart(device, dtype, dtype, k, options);
                         if (dtype != DType::f32) check_rows_apart(device, dtype, DType::f32, k, options);
                       }
                     }
                   }});
  for (const Shape s : {Shape{37, 51, 24}, Shape{1, 130, 33}, Shape{70, 130, 66}, Shape{33, 34, 35}}) {
    cases.push_back({"weight " + std::to_string(s.n) + "x" + std::to_string(s.k),
                     [s](Device& device, DType dtype) { check_weight(device, dtype, s.m, s.n, s.k); }});
  }
  for (const Shape s : {Shape{37, 130, 64}, Shape{5, 51, 33}, Shape{1, 1, 3}}) {
    cases.push_back({"nf4 weight " + std::to_string(s.n) + "x" + std::to_string(s.k),
                     [s](Device& device, DType dtype) { check_nf4(device, dtype, s.m, s.n, s.k); }});
  }
  for (int i = static_cast<int>(WeightFormat::q4_0); i <= static_cast<int>(WeightFormat::q6_k); ++i) {
    const auto format = static_cast<WeightFormat>(i);
    const int k = 2 * gguf_block(format).numbers;
    cases.push_back({"weight of blocks of " + std::to_string(gguf_block(format).bytes) + " bytes",
                     [format, k](Device& device, DType dtype) { check_gguf(device, dtype, format, 5, 51, k); }});
  }
  add_product_cases(cases);
  cases.push_back({"a changed weight", check_changed_weight});
  cases.push_back({"matmul of nothing", [](Device& device, DType dtype) {
                     check_matmul(device, dtype, DType::f32, 3, 5, 0, {});
                     check_matmul(device, dtype, DType::f32, 3, 5, 0, {.accumulate = true});
                     check_matmul(device, dtype, dtype, 0, 5, 4, {.transpose_b = true});
                     check_matmul(device, dtype, dtype, 3, 0, 4, {.transpose_a = true});
                   }});
  return cases;
}

}  // namespace tempora::test
