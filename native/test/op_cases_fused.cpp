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
  };
}

}  // namespace tempora::test
