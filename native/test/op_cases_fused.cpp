// Operations that do what others do one after another: to the same bits.
#include <cmath>

#include "op_cases.h"

namespace tempora::test {
namespace {

// Zeros, so that what nobody wrote compares too.
struct Cache {
  Cache(Device& device, const AttentionShape& shape, DType dtype)
      : bytes(device.backend.cache_bytes(kPages, shape, dtype)) {
    const auto numbers = static_cast<std::int64_t>(bytes / size_of(dtype));
    const std::vector<double> zeros(static_cast<std::size_t>(numbers));
    keys = device.upload(1, numbers, dtype, zeros);
    values = device.upload(1, numbers, dtype, zeros);
  }
  CachePlaces places(const Ints& slots) const { return {slots.data(), keys.buffer.data(), values.buffer.data()}; }

  static constexpr int kPages = 3;
  std::size_t bytes;
  Tensor keys, values;
};

// Two of everything that is written, from the same numbers.
struct HeadTensors {
  HeadTensors(Device& device, Random& random, std::int64_t rows, int heads, int head_dim, DType dtype)
      : product(device.random(random, rows, std::int64_t{heads} * head_dim, dtype, 2)),
        same(device.upload(rows, std::int64_t{heads} * head_dim, dtype, product.values)),
        normed(device.output(rows, std::int64_t{heads} * head_dim, dtype)),
        also_normed(device.output(rows, std::int64_t{heads} * head_dim, dtype)),
        bias(device.random(random, 1, std::int64_t{heads} * head_dim, dtype)),
        norm(device.random(random, 1, head_dim, dtype)),
        rstd(device.output(1, rows * heads, DType::f32)),
        same_rstd(device.output(1, rows * heads, DType::f32)) {}

  HeadRows rows(bool with_bias, bool with_norm) const {
    HeadRows rows;
    rows.out = with_norm ? normed.matrix : product.matrix;
    if (with_bias) rows.bias = bias.buffer.data();
    if (!with_norm) return rows;
    rows.raw = product.matrix;
    rows.norm = norm.buffer.data();
    rows.rstd = rstd.matrix.f32();
    return rows;
  }
  HeadRows same_rows(bool with_bias, bool with_norm) const {
    HeadRows rows = this->rows(with_bias, with_norm);
    rows.out = with_norm ? also_normed.matrix : same.matrix;
    if (with_norm) rows.raw = same.matrix;
    rows.rstd = same_rstd.matrix.f32();
    return rows;
  }
  void expect_same(Device& device, const std::string& name, bool with_norm) const {
    expect_close(name, device.read(product), device.read(same), 0);
    if (!with_norm) return;
    expect_close(name + " normed", device.read(normed), device.read(also_normed), 0);
    expect_close(name + " rstd", device.read(rstd), device.read(same_rstd), 0);
  }

  Tensor product, same, normed, also_normed, bias, norm, rstd, same_rstd;
};

void check_attention_inputs(Device& device, DType dtype, const AttentionShape& shape, bool bias, bool norm,
                            bool cached) {
  Random random(21);
  const std::int64_t rows = 5;
  const HeadTensors q(device, random, rows, shape.heads, shape.head_dim, dtype);
  const HeadTensors k(device, random, rows, shape.kv_heads, shape.head_dim, dtype);
  const HeadTensors v(device, random, rows, shape.kv_heads, shape.head_dim, dtype);
  std::vector<double> frequencies;
  for (int i = 0; i < shape.head_dim / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / shape.head_dim));
  const Tensor uploaded = device.upload(1, shape.head_dim / 2, DType::f32, frequencies);
  const Ints positions = device.ints({0, 7, 1500, 3, 44}), slots = device.ints({33, 2, 17, 16, 47});
  const Cache cache(device, shape, dtype), same_cache(device, shape, dtype);

  AttentionInputs inputs;
  inputs.q = q.rows(bias, norm);
  inputs.k = k.rows(bias, norm);
  inputs.v = v.rows(bias, false);
  inputs.shape = shape;
  inputs.norm_eps = 1e-5f;
  inputs.positions = positions.data();
  inputs.frequencies = uploaded.matrix.f32();
  if (cached) inputs.cache = cache.places(slots);
  device.backend.attention_inputs(inputs);

  AttentionInputs plain = inputs;
  plain.q = q.same_rows(bias, norm);
  plain.k = k.same_rows(bias, norm);
  plain.v = v.same_rows(bias, false);
  if (cached) plain.cache = same_cache.places(slots);
  device.backend.Backend::attention_inputs(plain);
  q.expect_same(device, "q", norm);
  k.expect_same(device, "k", norm);
  v.expect_same(device, "v", false);
  expect_close("keys", device.read(cache.keys), device.read(same_cache.keys), 0);
  expect_close("values", device.read(cache.values), device.read(same_cache.values), 0);
}

void check_attention_inputs_of(Device& device, DType dtype, const AttentionShape& shape) {
  for (int choice = 0; choice < 8; ++choice) {
    check_attention_inputs(device, dtype, shape, (choice & 1) != 0, (choice & 2) != 0, (choice & 4) != 0);
  }
}

// Of so few rows that splits lie apart, and of more.
void check_row_attention_inputs(Device& device, DType dtype, const AttentionShape& shape, std::int64_t inputs_size,
                                bool bias, bool norm) {
  Random random(22);
  const std::int64_t rows = 5;
  const Tensor x = device.random(random, rows, inputs_size, dtype);
  const HeadTensors q(device, random, rows, shape.heads, shape.head_dim, dtype);
  const HeadTensors k(device, random, rows, shape.kv_heads, shape.head_dim, dtype);
  const HeadTensors v(device, random, rows, shape.kv_heads, shape.head_dim, dtype);
  const auto weight_for = [&](const HeadTensors& of) {
    return device.weight(device.random(random, of.product.matrix.cols, inputs_size, dtype, 0.1));
  };
  const auto q_weight = weight_for(q), k_weight = weight_for(k), v_weight = weight_for(v);
  const std::vector<const Weight*> weights{q_weight.get(), k_weight.get(), v_weight.get()};
  const Tensor frequencies = device.random(random, 1, shape.head_dim / 2, DType::f32);
  const Ints positions = device.ints({0, 7, 1500, 3, 44}), slots = device.ints({33, 2, 17, 16, 47});
  const Cache cache(device, shape, dtype), same_cache(device, shape, dtype);
  AttentionInputs inputs;
  inputs.q = q.rows(bias, norm);
  inputs.k = k.rows(bias, norm);
  inputs.v = v.rows(bias, false);
  inputs.shape = shape;
  inputs.norm_eps = 1e-5f;
  inputs.positions = positions.data();
  inputs.frequencies = frequencies.matrix.f32();
  inputs.cache = cache.places(slots);
  device.backend.row_attention_inputs(x.matrix, weights, inputs);

  AttentionInputs plain = inputs;
  plain.q = q.same_rows(bias, norm);
  plain.k = k.same_rows(bias, norm);
  plain.v = v.same_rows(bias, false);
  plain.cache = same_cache.places(slots);
  device.backend.row_product(x.matrix, *weights[0], plain.q.product(), false);
  device.backend.row_product(x.matrix, *weights[1], plain.k.product(), false);
  device.backend.row_product(x.matrix, *weights[2], plain.v.product(), false);
  device.backend.Backend::attention_inputs(plain);
  expect_close("q", device.read(inputs.q.out), device.read(plain.q.out), 0);
  expect_close("k", device.read(inputs.k.out), device.read(plain.k.out), 0);
  expect_close("v", device.read(inputs.v.out), device.read(plain.v.out), 0);
  expect_close("keys", device.read(cache.keys), device.read(same_cache.keys), 0);
  expect_close("values", device.read(cache.values), device.read(same_cache.values), 0);
}

void check_row_attention_inputs_of(Device& device, DType dtype, const AttentionShape& shape, std::int64_t inputs) {
  for (int choice = 0; choice < 4; ++choice) {
    check_row_attention_inputs(device, dtype, shape, inputs, (choice & 1) != 0, (choice & 2) != 0);
  }
}

void check_row_swiglu(Device& device, DType dtype, std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  Random random(23);
  const Tensor x = device.random(random, rows, inputs, dtype);
  const auto gate = device.weight(device.random(random, outputs, inputs, dtype, 0.1));
  const auto up = device.weight(device.random(random, outputs, inputs, dtype, 0.1));
  const Tensor gates = device.output(rows, outputs, dtype), ups = device.output(rows, outputs, dtype);
  const Tensor out = device.output(rows, outputs, dtype), want = device.output(rows, outputs, dtype);
  device.backend.row_swiglu(x.matrix, {*gate, gates.matrix}, {*up, ups.matrix}, out.matrix);
  device.backend.row_product(x.matrix, *gate, gates.matrix, false);
  device.backend.row_product(x.matrix, *up, ups.matrix, false);
  device.backend.swiglu(gates.matrix, ups.matrix, want.matrix);
  expect_close("out", device.read(out), device.read(want), 0);
}

void check_row_product_norm(Device& device, DType dtype, std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  Random random(24);
  const Tensor x = device.random(random, rows, inputs, dtype);
  const auto weight = device.weight(device.random(random, outputs, inputs, dtype, 0.1));
  const Tensor norm = device.random(random, 1, outputs, dtype);
  const Tensor sum = device.random(random, rows, outputs, DType::f32);
  const Tensor same = device.upload(rows, outputs, DType::f32, sum.values);
  const Tensor normed = device.output(rows, outputs, dtype), want = device.output(rows, outputs, dtype);
  const Tensor rstd = device.output(1, rows, DType::f32), want_rstd = device.output(1, rows, DType::f32);
  device.backend.row_product_norm(x.matrix, *weight, sum.matrix, norm.buffer.data(), 1e-5f, normed.matrix,
                                  rstd.matrix.f32());
  device.backend.row_product(x.matrix, *weight, same.matrix, true);
  device.backend.rms_norm(same.matrix, norm.buffer.data(), 1e-5f, want.matrix, want_rstd.matrix.f32());
  expect_close("sum", device.read(sum), device.read(same), 0);
  expect_close("normed", device.read(normed), device.read(want), 0);
  expect_close("rstd", device.read(rstd), device.read(want_rstd), 0);
}

void check_recomputed_norm(Device& device, DType dtype, std::int64_t rows, std::int64_t cols) {
  constexpr float kEps = 1e-5f;
  Random random(25);
  const Tensor x = device.random(random, rows, cols, DType::f32, 3), weight = device.random(random, 1, cols, dtype);
  const Tensor d_y = device.random(random, rows, cols, DType::f32);
  for (const bool both : {true, false}) {
    const Tensor rstd = device.output(1, rows, DType::f32), same_rstd = device.output(1, rows, DType::f32);
    const Tensor y = device.output(rows, cols, dtype), want_y = device.output(rows, cols, dtype);
    const Tensor rounded = device.output(rows, cols, dtype), want_rounded = device.output(rows, cols, dtype);
    const Tensor d_x = device.random(random, rows, cols, DType::f32);
    const Tensor same = device.upload(rows, cols, DType::f32, d_x.values);
    const Tensor d_weight = device.random(random, 1, cols, DType::f32);
    const Tensor same_weight = device.upload(1, cols, DType::f32, d_weight.values);
    device.backend.rms_norm(x.matrix, weight.buffer.data(), kEps, want_y.matrix, same_rstd.matrix.f32());
    device.backend.copy(rstd.buffer.data(), same_rstd.buffer.data(), rstd.matrix.bytes());
    device.backend.recomputed_norm_backward({.x = x.matrix,
                                             .weight = weight.buffer.data(),
                                             .eps = kEps,
                                             .rstd = rstd.matrix.f32(),
                                             .d_y = d_y.matrix,
                                             .y = y.matrix,
                                             .d_x = d_x.matrix,
                                             .d_weight = both ? d_weight.matrix.f32() : nullptr,
                                             .rounded = both ? rounded.matrix : Matrix{}});
    device.backend.rms_norm_backward(x.matrix, weight.buffer.data(), dtype, same_rstd.matrix.f32(), d_y.matrix,
                                     same.matrix, both ? same_weight.matrix.f32() : nullptr);
    device.backend.cast(same.matrix, want_rounded.matrix);
    expect_close("y", device.read(y), device.read(want_y), 0);
    expect_close("d_x", device.read(d_x), device.read(same), 0);
    expect_close("rstd", device.read(rstd), device.read(same_rstd), 0);
    if (!both) continue;
    expect_close("d_weight", device.read(d_weight), device.read(same_weight), 0);
    expect_close("rounded", device.read(rounded), device.read(want_rounded), 0);
  }
}

OpCase recomputed_case(const std::string& name, std::int64_t rows, std::int64_t cols) {
  return {name, [=](Device& device, DType dtype) { check_recomputed_norm(device, dtype, rows, cols); }};
}

OpCase swiglu_case(const std::string& name, std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  return {name, [=](Device& device, DType dtype) { check_row_swiglu(device, dtype, rows, outputs, inputs); }};
}

OpCase norm_case(const std::string& name, std::int64_t rows, std::int64_t outputs, std::int64_t inputs) {
  return {name, [=](Device& device, DType dtype) { check_row_product_norm(device, dtype, rows, outputs, inputs); }};
}

}  // namespace

std::vector<OpCase> fused_cases() {
  return {
      {"attention_inputs",
       [](Device& device, DType dtype) {
         check_attention_inputs_of(device, dtype, {4, 2, 64, 0});
       }},
      {"attention_inputs of 16",
       [](Device& device, DType dtype) {
         check_attention_inputs_of(device, dtype, {3, 1, 16, 0});
       }},
      {"attention_inputs of 20",
       [](Device& device, DType dtype) {
         check_attention_inputs_of(device, dtype, {2, 2, 20, 0});
       }},
      {"attention_inputs of many heads",
       [](Device& device, DType dtype) {
         check_attention_inputs_of(device, dtype, {12, 3, 128, 0});
       }},
      {"row_attention_inputs",
       [](Device& device, DType dtype) {
         check_row_attention_inputs_of(device, dtype, {4, 2, 64, 0}, 1032);
       }},
      {"row_attention_inputs of 20",
       [](Device& device, DType dtype) {
         check_row_attention_inputs_of(device, dtype, {2, 2, 20, 0}, 136);
       }},
      swiglu_case("row_swiglu", 3, 136, 1096),
      swiglu_case("row_swiglu of odd outputs", 2, 70, 600),
      swiglu_case("row_swiglu of one split", 2, 72, 64),
      norm_case("row_product_norm", 5, 136, 1096),
      norm_case("row_product_norm of odd outputs", 3, 71, 600),
      norm_case("row_product_norm of long rows", 2, 1032, 552),
      norm_case("row_product_norm of one split", 4, 72, 64),
      recomputed_case("recomputed_norm_backward", 13, 72),
      recomputed_case("recomputed_norm_backward of odd rows", 5, 71),
      recomputed_case("recomputed_norm_backward of long rows", 401, 1032),
  };
}

}  // namespace tempora::test
