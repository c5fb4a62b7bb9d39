#include <cmath>
#include <limits>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

constexpr double kEps = 1e-5;

void check_memory(Device& device, DType dtype) {
  Random random(3);
  const Tensor from = device.random(random, 7, 333, dtype);
  const Tensor copied = device.output(7, 333, dtype);
  device.backend.copy(copied.buffer.data(), from.buffer.data(), from.matrix.bytes());
  expect_close("copy", device.read(copied), from.values, 0);
  device.backend.zero(copied.buffer.data(), copied.matrix.bytes());
  expect_close("zero", device.read(copied), std::vector<double>(7 * 333), 0);

  for (const DType other : {DType::f32, DType::bf16}) {
    const Tensor cast = device.output(7, 333, other);
    device.backend.cast(from.matrix, cast.matrix);
    std::vector<double> want = from.values;
    for (double& value : want) value = round_to(other, value);
    expect_close("cast", device.read(cast), want, 0);
  }
}

// Every number by itself, however small: those below the normal ones, ties, and those at the ends of the range.
void check_rounding(Device& device, DType dtype) {
  std::vector<double> values;
  for (const double scale : {1e-44, 1e-41, 3e-39, 1.1754944e-38, 1e-38, 1e-30, 1.0, 1e30, 1.5e38}) {
    for (int i = -40; i < 40; ++i) values.push_back(scale * (1 + i / 512.0) * (i % 2 == 0 ? 1 : -1));
  }
  values.insert(values.end(), {0.0, -0.0, 3.3895314e38, -3.3895314e38});
  const auto count = static_cast<std::int64_t>(values.size());
  const Tensor from = device.upload(1, count, dtype, values), cast = device.output(1, count, DType::bf16);
  device.backend.cast(from.matrix, cast.matrix);
  const std::vector<double> got = device.read(cast);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double want = round_to(DType::bf16, from.values[i]);
    expect(got[i] == want, std::to_string(i) + ": " + std::to_string(got[i] / want) + " of what it is rounded to");
  }
}

void check_all_finite(Device& device, DType dtype) {
  Random random(4);
  std::vector<double> values = random.normals(50'001, 1e30);
  expect(device.backend.all_finite(device.upload(1, 50'001, dtype, values).matrix), "finite numbers are not finite");
  for (const std::size_t place : {std::size_t{0}, std::size_t{31'007}, std::size_t{50'000}}) {
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      std::vector<double> spoiled = values;
      spoiled[place] = bad;
      const Tensor x = device.upload(1, 50'001, dtype, spoiled);
      expect(!device.backend.all_finite(x.matrix), "a number that is not finite was not seen");
    }
  }
  device.note(values);
}

void check_embedding(Device& device, DType dtype, std::int64_t vocab, std::int64_t cols, std::int64_t count) {
  Random random(5);
  const Tensor table = device.random(random, vocab, cols, dtype);
  std::vector<std::int32_t> tokens = random.tokens(count, vocab);
  for (const std::size_t at : {5, 6, 60, 400}) {
    if (at < tokens.size()) tokens[at] = static_cast<std::int32_t>(vocab - 1);
  }
  const Ints uploaded = device.ints(tokens);
  const Tensor out = device.output(count, cols, DType::f32);
  device.backend.embed(uploaded.data(), *device.weight(table), out.matrix);
  const Tensor d_out = device.random(random, count, cols, DType::f32);
  const Tensor d_table = device.random(random, vocab, cols, DType::f32);
  device.backend.embed_backward(uploaded.data(), d_out.matrix, d_table.matrix);
  std::vector<double> want(count * cols), want_gradient = d_table.values;
  for (std::int64_t i = 0; i < count * cols; ++i) {
    const std::int64_t at = tokens[i / cols] * cols + i % cols;
    want[i] = table.values[at];
    want_gradient[at] += d_out.values[i];
  }
  expect_close("out", device.read(out), want, 0);
  expect_close("d_table", device.read(d_table), want_gradient, 1e-6);
}

void check_rms_norm(Device& device, DType dtype, std::int64_t rows, std::int64_t cols) {
  Random random(6);
  const Tensor x = device.random(random, rows, cols, DType::f32, 3);
  const Tensor weight = device.random(random, 1, cols, dtype);
  const Tensor y = device.output(rows, cols, dtype), rstd = device.output(1, rows, DType::f32);
  device.backend.rms_norm(x.matrix, weight.buffer.data(), kEps, y.matrix, rstd.matrix.f32());
  expect_close("y", device.read(y), reference::rms_norm(x.values, weight.values, kEps, cols), tolerance_of(dtype));
  expect_close("rstd", device.read(rstd), reference::rstd(x.values, kEps, cols), 1e-5);

  const Tensor d_y = device.random(random, rows, cols, DType::f32);
  const Tensor d_x = device.random(random, rows, cols, DType::f32);
  const Tensor d_weight = device.random(random, 1, cols, DType::f32);
  device.backend.rms_norm_backward(x.matrix, weight.buffer.data(), dtype, rstd.matrix.f32(), d_y.matrix, d_x.matrix,
                                   d_weight.matrix.f32());
  const auto by_x = [&](const std::vector<double>& moved) {
    return dot(d_y.values, reference::rms_norm(moved, weight.values, kEps, cols)) + dot(d_x.values, moved);
  };
  const auto by_weight = [&](const std::vector<double>& moved) {
    return dot(d_y.values, reference::rms_norm(x.values, moved, kEps, cols)) + dot(d_weight.values, moved);
  };
  expect_close("d_x", device.read(d_x), numeric_gradient(by_x, x.values), 3e-5);
  expect_close("d_weight", device.read(d_weight), numeric_gradient(by_weight, weight.values), 3e-5);
}

// Of rows too long for numeric gradients: by the formula.
void check_long_rms_norm(Device& device, DType dtype, std::int64_t rows, std::int64_t cols) {
  Random random(13);
  const Tensor x = device.random(random, rows, cols, DType::f32, 3);
  const Tensor weight = device.random(random, 1, cols, dtype);
  const Tensor y = device.output(rows, cols, dtype), rstd = device.output(1, rows, DType::f32);
  device.backend.rms_norm(x.matrix, weight.buffer.data(), kEps, y.matrix, rstd.matrix.f32());
  expect_close("y", device.read(y), reference::rms_norm(x.values, weight.values, kEps, cols), tolerance_of(dtype));

  const Tensor d_y = device.random(random, rows, cols, DType::f32);
  std::vector<double> scales = reference::rstd(x.values, kEps, cols);
  for (const bool weight_too : {true, false}) {
    const Tensor d_x = device.random(random, rows, cols, DType::f32);
    const Tensor d_weight = device.random(random, 1, cols, DType::f32);
    std::vector<double> want_x = d_x.values, want_weight = d_weight.values;
    for (std::int64_t row = 0; row < rows; ++row) {
      const double scale = scales[row], *xs = &x.values[row * cols], *d_ys = &d_y.values[row * cols];
      double pull = 0;
      for (std::int64_t i = 0; i < cols; ++i) pull += d_ys[i] * weight.values[i] * xs[i] / cols;
      for (std::int64_t i = 0; i < cols; ++i) {
        want_x[row * cols + i] += scale * (d_ys[i] * weight.values[i] - xs[i] * scale * scale * pull);
        if (weight_too) want_weight[i] += d_ys[i] * xs[i] * scale;
      }
    }
    device.backend.rms_norm_backward(x.matrix, weight.buffer.data(), dtype, rstd.matrix.f32(), d_y.matrix, d_x.matrix,
                                     weight_too ? d_weight.matrix.f32() : nullptr);
    expect_close("d_x", device.read(d_x), want_x, 3e-5);
    expect_close("d_weight", device.read(d_weight), want_weight, 3e-5);
  }
}

void check_head_norm(Device& device, DType dtype, std::int64_t rows, std::int64_t head_dim) {
  const std::int64_t cols = 3 * head_dim;
  Random random(7);
  const Tensor x = device.random(random, rows, cols, dtype, 2);
  const Tensor weight = device.random(random, 1, head_dim, dtype);
  const Tensor y = device.output(rows, cols, dtype), rstd = device.output(1, rows * 3, DType::f32);
  device.backend.head_norm(x.matrix, head_dim, weight.buffer.data(), kEps, y.matrix, rstd.matrix.f32());
  expect_close("y", device.read(y), reference::rms_norm(x.values, weight.values, kEps, head_dim), tolerance_of(dtype));
  expect_close("rstd", device.read(rstd), reference::rstd(x.values, kEps, head_dim), 1e-5);

  const Tensor d_y = device.random(random, rows, cols, dtype);
  const Tensor d_weight = device.random(random, 1, head_dim, DType::f32);
  const auto by_x = [&](const std::vector<double>& moved) {
    return dot(d_y.values, reference::rms_norm(moved, weight.values, kEps, head_dim));
  };
  const auto by_weight = [&](const std::vector<double>& moved) {
    return dot(d_y.values, reference::rms_norm(x.values, moved, kEps, head_dim)) + dot(d_weight.values, moved);
  };
  // In place: d_x is d_y's memory.
  device.backend.head_norm_backward(x.matrix, head_dim, weight.buffer.data(), rstd.matrix.f32(), d_y.matrix, d_y.matrix,
                                    d_weight.matrix.f32());
  expect_close("d_x", device.read(d_y), numeric_gradient(by_x, x.values), 2 * tolerance_of(dtype));
  expect_close("d_weight", device.read(d_weight), numeric_gradient(by_weight, weight.values), 3e-5);
}

void check_bias(Device& device, DType dtype, std::int64_t cols) {
  Random random(8);
  const std::int64_t rows = 301;
  for (const DType of_x : {DType::f32, dtype}) {
    const Tensor x = device.random(random, rows, cols, of_x);
    const Tensor bias = device.random(random, 1, cols, dtype);
    const Tensor d_bias = device.random(random, 1, cols, DType::f32);
    std::vector<double> want = x.values, want_gradient = d_bias.values;
    for (std::size_t i = 0; i < want.size(); ++i) {
      want_gradient[i % cols] += x.values[i];
      want[i] += bias.values[i % cols];
    }
    device.backend.bias_backward(x.matrix, d_bias.matrix.f32());
    device.backend.add_bias(x.matrix, bias.buffer.data(), dtype);
    expect_close("x", device.read(x), want, tolerance_of(of_x));
    expect_close("d_bias", device.read(d_bias), want_gradient, 2e-5);
  }
}

void check_rope(Device& device, DType dtype, int head_dim) {
  Random random(9);
  const std::int64_t rows = 33, cols = 3 * head_dim;
  std::vector<std::int32_t> positions = random.tokens(rows, 200);
  positions[0] = 0;
  positions[1] = 1500;
  std::vector<double> frequencies;
  for (int i = 0; i < head_dim / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / head_dim));
  const Tensor uploaded_frequencies = device.upload(1, head_dim / 2, DType::f32, frequencies);
  const Ints uploaded = device.ints(positions);
  for (const bool inverse : {false, true}) {
    const Tensor x = device.random(random, rows, cols, dtype);
    device.backend.rope(x.matrix, head_dim, uploaded.data(), uploaded_frequencies.matrix.f32(), inverse);
    // Angles are rounded to f32, as in the models' own code: 1500 radians are off by 6e-5.
    expect_close("x", device.read(x),
                 reference::rope(x.values, cols, head_dim, positions, uploaded_frequencies.values, inverse),
                 tolerance_of(dtype) + 1e-4);
  }
}

void check_swiglu(Device& device, DType dtype) {
  Random random(10);
  const std::int64_t rows = 9, cols = 53;
  std::vector<double> gates = random.normals(rows * cols, 3);
  gates[0] = -100, gates[1] = 100, gates[2] = 0;
  const Tensor gate = device.upload(rows, cols, dtype, gates);
  const Tensor up = device.random(random, rows, cols, dtype);
  const Tensor out = device.output(rows, cols, dtype);
  device.backend.swiglu(gate.matrix, up.matrix, out.matrix);
  const std::vector<double> want = reference::swiglu(gate.values, up.values);
  expect_close("out", device.read(out), want, tolerance_of(dtype));

  const Tensor d_out = device.random(random, rows, cols, dtype);
  const auto by_gate = [&](const std::vector<double>& moved) {
    return dot(d_out.values, reference::swiglu(moved, up.values));
  };
  const auto by_up = [&](const std::vector<double>& moved) {
    return dot(d_out.values, reference::swiglu(gate.values, moved));
  };
  const std::vector<double> want_gate = numeric_gradient(by_gate, gate.values);
  const std::vector<double> want_up = numeric_gradient(by_up, up.values);
  const Tensor again = device.output(rows, cols, dtype);
  const Tensor d_gate = device.output(rows, cols, dtype), d_up = device.output(rows, cols, dtype);
  device.backend.swiglu_backward(gate.matrix, up.matrix, d_out.matrix, d_gate.matrix, d_up.matrix, Matrix{});
  expect_close("d_gate", device.read(d_gate), want_gate, tolerance_of(dtype));
  expect_close("d_up", device.read(d_up), want_up, tolerance_of(dtype));
  device.backend.swiglu_backward(gate.matrix, up.matrix, d_out.matrix, gate.matrix, up.matrix, again.matrix);
  expect_close("d_gate in place", device.read(gate), want_gate, tolerance_of(dtype));
  expect_close("d_up in place", device.read(up), want_up, tolerance_of(dtype));
  expect_close("out again", device.read(again), want, tolerance_of(dtype));
}

// Every number by itself, over all of the exponential's range and far past its ends.
void check_swiglu_range(Device& device, DType dtype) {
  std::vector<double> gates = {1e30, -1e30, 3e38, -3e38};
  for (int i = -1200; i <= 1200; ++i) gates.push_back(i / 13.0);
  const auto count = static_cast<std::int64_t>(gates.size());
  const std::vector<double> ones(gates.size(), 1);
  const Tensor gate = device.upload(1, count, dtype, gates), up = device.upload(1, count, dtype, ones);
  const Tensor out = device.output(1, count, dtype);
  const Tensor d_gate = device.output(1, count, dtype), d_up = device.output(1, count, dtype);
  device.backend.swiglu(gate.matrix, up.matrix, out.matrix);
  device.backend.swiglu_backward(gate.matrix, up.matrix, up.matrix, d_gate.matrix, d_up.matrix, Matrix{});
  const std::vector<double> got = device.read(out), got_gate = device.read(d_gate), got_up = device.read(d_up);
  // Where e^-g is past the largest f32, the results may be 0.
  const double relative = dtype == DType::f32 ? 2e-6 : 0x1.02p-8, smallest = 92 / 3.4e38;
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const double g = gate.values[i], s = 1 / (1 + std::exp(-g)), silu = g * s;
    const auto expect_near = [&](const char* what, double value, double want, double terms) {
      expect(std::abs(value - want) <= relative * terms + smallest,
             std::string(what) + " of " + std::to_string(g) + " is off by " + std::to_string((value - want) / terms));
    };
    expect_near("out", got[i], silu, std::abs(silu));
    expect_near("d_up", got_up[i], silu, std::abs(silu));
    expect_near("d_gate", got_gate[i], s + silu * (1 - s), s + std::abs(silu * (1 - s)));
  }
}

void check_rows(Device& device, DType dtype) {
  Random random(11);
  const std::int64_t cols = 37;
  const Tensor x = device.random(random, 50, cols, dtype);
  const std::vector<std::int32_t> rows = {49, 0, 7, 8, 31};
  const Ints uploaded = device.ints(rows);
  const Tensor out = device.output(5, cols, dtype);
  device.backend.gather_rows(x.matrix, uploaded.data(), out.matrix);
  std::vector<double> want, scattered(x.values.size());
  for (std::int64_t i = 0; i < 5 * cols; ++i) {
    const std::int64_t at = rows[i / cols] * cols + i % cols;
    want.push_back(x.values[at]);
    scattered[at] = x.values[at];
  }
  expect_close("gathered", device.read(out), want, 0);
  device.backend.scatter_rows(out.matrix, uploaded.data(), x.matrix);
  expect_close("scattered", device.read(x), scattered, 0);
}

// No tokens at all: nothing is read, nothing is written.
void check_nothing(Device& device, DType dtype) {
  Random random(12);
  const Tensor none = device.output(0, 24, dtype), none_f32 = device.output(0, 24, DType::f32);
  const Tensor weight = device.random(random, 1, 24, dtype), sums = device.random(random, 1, 24, DType::f32);
  const Tensor table = device.random(random, 11, 24, DType::f32);
  const Ints no_rows = device.ints({});
  Backend& backend = device.backend;
  backend.embed(no_rows.data(), *device.weight(table), none_f32.matrix);
  backend.embed_backward(no_rows.data(), none_f32.matrix, table.matrix);
  backend.rms_norm(none_f32.matrix, weight.buffer.data(), kEps, none.matrix, nullptr);
  backend.rms_norm_backward(none_f32.matrix, weight.buffer.data(), dtype, nullptr, none_f32.matrix, none_f32.matrix,
                            sums.matrix.f32());
  backend.head_norm(none.matrix, 12, weight.buffer.data(), kEps, none.matrix, nullptr);
  backend.add_bias(none.matrix, weight.buffer.data(), dtype);
  backend.bias_backward(none.matrix, sums.matrix.f32());
  backend.rope(none.matrix, 12, no_rows.data(), sums.matrix.f32(), false);
  backend.swiglu(none.matrix, none.matrix, none.matrix);
  backend.gather_rows(table.matrix, no_rows.data(), none_f32.matrix);
  backend.scatter_rows(none_f32.matrix, no_rows.data(), none_f32.matrix);
  expect(backend.all_finite(none.matrix), "nothing is finite");
  expect_close("table", device.read(table), table.values, 0);
  expect_close("sums", device.read(sums), sums.values, 0);
}

}  // namespace

std::vector<OpCase> element_cases() {
  return {
      {"memory", check_memory},
      {"cast, rounding", check_rounding},
      {"all_finite", check_all_finite},
      {"embed", [](Device& device, DType dtype) { check_embedding(device, dtype, 511, 24, 670); }},
      {"embed, few tokens often", [](Device& device, DType dtype) { check_embedding(device, dtype, 3, 21, 701); }},
      {"embed, long rows", [](Device& device, DType dtype) { check_embedding(device, dtype, 40, 1100, 33); }},
      {"rms_norm", [](Device& device, DType dtype) { check_rms_norm(device, dtype, 5, 24); }},
      {"rms_norm of many rows", [](Device& device, DType dtype) { check_rms_norm(device, dtype, 90, 7); }},
      {"rms_norm of long rows", [](Device& device, DType dtype) { check_long_rms_norm(device, dtype, 3, 1028); }},
      {"rms_norm of longer rows", [](Device& device, DType dtype) { check_long_rms_norm(device, dtype, 2, 4100); }},
      {"rms_norm of the longest rows",
       [](Device& device, DType dtype) { check_long_rms_norm(device, dtype, 2, 8200); }},
      {"rms_norm, parts of several rows",
       [](Device& device, DType dtype) { check_long_rms_norm(device, dtype, 801, 132); }},
      {"head_norm", [](Device& device, DType dtype) { check_head_norm(device, dtype, 5, 20); }},
      {"head_norm of 64", [](Device& device, DType dtype) { check_head_norm(device, dtype, 3, 64); }},
      {"head_norm of 256", [](Device& device, DType dtype) { check_head_norm(device, dtype, 1, 256); }},
      {"head_norm of many rows", [](Device& device, DType dtype) { check_head_norm(device, dtype, 300, 8); }},
      {"bias", [](Device& device, DType dtype) { check_bias(device, dtype, 70); }},
      {"bias of whole vectors", [](Device& device, DType dtype) { check_bias(device, dtype, 328); }},
      {"rope", [](Device& device, DType dtype) { check_rope(device, dtype, 24); }},
      {"rope of 64", [](Device& device, DType dtype) { check_rope(device, dtype, 64); }},
      {"rope of 80", [](Device& device, DType dtype) { check_rope(device, dtype, 80); }},
      {"swiglu", check_swiglu},
      {"swiglu, all of its range", check_swiglu_range},
      {"rows", check_rows},
      {"no tokens", check_nothing},
  };
}

}  // namespace tempora::test
