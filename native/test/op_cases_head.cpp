#include <cmath>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

struct HeadShape {
  std::int64_t rows, cols, vocab;
  double scale = 0.3;      // of the weights
  bool accumulate = true;  // d_weight is added to
};

// Rows with one edge, and some with two or three, of which some are the same token.
struct EdgeData {
  explicit EdgeData(Random& random, const HeadShape& shape) {
    row_start.push_back(0);
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      const std::int64_t count = r % 5 == 3 ? 3 : 1;
      for (std::int64_t i = 0; i < count; ++i) {
        row.push_back(static_cast<std::int32_t>(r));
        token.push_back(i == 2 ? token.back() : static_cast<std::int32_t>(random.below(shape.vocab)));
      }
      row_start.push_back(static_cast<std::int32_t>(row.size()));
    }
    if (!token.empty()) token.back() = static_cast<std::int32_t>(shape.vocab - 1);
  }

  std::vector<std::int32_t> row, token, row_start;
};

std::vector<double> log_probs(const EdgeData& edges, const HeadShape& shape, const std::vector<double>& hidden,
                              const std::vector<double>& weight) {
  const auto logits = reference::matmul(hidden, false, weight, true, shape.rows, shape.vocab, shape.cols);
  const auto lse = reference::log_sum_exp(logits, shape.vocab);
  std::vector<double> result;
  for (std::size_t e = 0; e < edges.row.size(); ++e) {
    result.push_back(logits[edges.row[e] * shape.vocab + edges.token[e]] - lse[edges.row[e]]);
  }
  return result;
}

struct Gradients {
  std::vector<double> hidden, weight;
};

// From d_logits = Σ_edges coefficient · (onehot - softmax), in f64. Finite differences check this for small shapes.
Gradients gradients(const EdgeData& edges, const HeadShape& shape, const std::vector<double>& coefficient,
                    const std::vector<double>& hidden, const std::vector<double>& weight) {
  const auto logits = reference::matmul(hidden, false, weight, true, shape.rows, shape.vocab, shape.cols);
  const auto log_softmax = reference::log_softmax(logits, shape.vocab);
  std::vector<double> d_logits(logits.size());
  for (std::size_t e = 0; e < edges.row.size(); ++e) {
    const std::int64_t first = edges.row[e] * shape.vocab;
    for (std::int64_t v = 0; v < shape.vocab; ++v) {
      d_logits[first + v] += coefficient[e] * ((v == edges.token[e] ? 1 : 0) - std::exp(log_softmax[first + v]));
    }
  }
  return {reference::matmul(d_logits, false, weight, false, shape.rows, shape.cols, shape.vocab),
          reference::matmul(d_logits, true, hidden, false, shape.vocab, shape.cols, shape.rows)};
}

void check_reference(const EdgeData& edges, const HeadShape& shape, const std::vector<double>& coefficient,
                     const Gradients& want, const std::vector<double>& hidden, const std::vector<double>& weight) {
  const auto by_hidden = [&](const std::vector<double>& moved) {
    return dot(coefficient, log_probs(edges, shape, moved, weight));
  };
  const auto by_weight = [&](const std::vector<double>& moved) {
    return dot(coefficient, log_probs(edges, shape, hidden, moved));
  };
  expect_close("the reference's d_hidden", want.hidden, numeric_gradient(by_hidden, hidden), 1e-6);
  expect_close("the reference's d_weight", want.weight, numeric_gradient(by_weight, weight), 1e-6);
}

enum class Keep { nothing, own_type, f32 };

Tensor kept_logits(Device& device, const HeadShape& shape, DType dtype) {
  const std::size_t bytes = device.backend.kept_logits_bytes(shape.rows, shape.vocab, dtype);
  Tensor kept = device.output(1, static_cast<std::int64_t>((bytes + 3) / 4), DType::f32);
  kept.matrix = {kept.matrix.data, dtype, shape.rows, shape.vocab};
  return kept;
}

void check_head(Device& device, DType dtype, const HeadShape& shape, Keep keep, bool check_differences = false) {
  Random random(13);
  const Tensor hidden = device.random(random, shape.rows, shape.cols, dtype);
  const Tensor weight = device.random(random, shape.vocab, shape.cols, dtype, shape.scale);
  const EdgeData data(random, shape);
  const auto count = static_cast<std::int64_t>(data.row.size());
  const Ints token = device.ints(data.token), row_start = device.ints(data.row_start);
  const Edges edges{count, token.data(), row_start.data()};
  const Tensor log_prob = device.output(1, count, DType::f32), lse = device.output(1, shape.rows, DType::f32);
  const Tensor kept =
      keep == Keep::nothing ? Tensor{} : kept_logits(device, shape, keep == Keep::f32 ? DType::f32 : dtype);
  const auto head = device.weight(weight);
  device.backend.head_forward(hidden.matrix, *head, edges, log_prob.matrix.f32(), lse.matrix.f32(), kept.matrix);
  expect_close("log_prob", device.read(log_prob), log_probs(data, shape, hidden.values, weight.values), 1e-5);

  const Tensor coefficient = device.random(random, 1, count, DType::f32);
  const Tensor d_hidden = device.output(shape.rows, shape.cols, DType::f32);
  const Tensor d_weight = shape.accumulate ? device.random(random, shape.vocab, shape.cols, DType::f32, 0.1)
                                           : device.output(shape.vocab, shape.cols, DType::f32);
  device.backend.head_backward(hidden.matrix, *head, edges, coefficient.matrix.f32(), lse.matrix.f32(), kept.matrix,
                               d_hidden.matrix, d_weight.matrix, shape.accumulate);
  Gradients want = gradients(data, shape, coefficient.values, hidden.values, weight.values);
  if (check_differences) check_reference(data, shape, coefficient.values, want, hidden.values, weight.values);
  for (std::size_t i = 0; i < want.weight.size() && shape.accumulate; ++i) want.weight[i] += d_weight.values[i];
  const double tolerance = dtype == DType::f32 ? 5e-5 : 2e-2;
  expect_close("d_hidden", device.read(d_hidden), want.hidden, tolerance);
  expect_close("d_weight", device.read(d_weight), want.weight, tolerance);
}

}  // namespace

std::vector<OpCase> head_cases() {
  std::vector<OpCase> cases;
  const auto add = [&](const std::string& name, const HeadShape& shape, Keep keep, bool differences) {
    cases.push_back(
        {"head " + name, [=](Device& device, DType dtype) { check_head(device, dtype, shape, keep, differences); }});
  };
  add("of a small vocabulary", {6, 5, 11}, Keep::nothing, true);
  add("of odd sizes", {37, 24, 511}, Keep::nothing, false);
  add("of odd sizes, logits kept", {37, 24, 511}, Keep::own_type, false);
  add("of odd sizes, logits kept in f32", {37, 24, 511}, Keep::f32, false);
  add("of several chunks", {21, 16, 2603}, Keep::nothing, false);
  add("of several chunks, logits kept", {21, 16, 2603}, Keep::own_type, false);
  add("of several chunks in vectors", {21, 16, 2608}, Keep::nothing, false);
  add("of several chunks in vectors, logits kept", {21, 16, 2608}, Keep::own_type, false);
  add("of several chunks in vectors, logits kept in f32", {21, 16, 2608}, Keep::f32, false);
  add("of more columns than a block takes, logits kept", {2, 8, 16392 + 2048}, Keep::own_type, false);
  add("of one row", {1, 80, 300}, Keep::own_type, false);
  add("of many rows", {1101, 8, 33}, Keep::own_type, false);
  add("of confident rows", {19, 24, 130, 4}, Keep::own_type, false);
  constexpr bool kWritten = false;
  add("of several chunks, its gradient written", {21, 16, 2603, 0.3, kWritten}, Keep::nothing, false);
  add("of several chunks, logits kept, its gradient written", {21, 16, 2608, 0.3, kWritten}, Keep::own_type, false);
  add("of many rows, its gradient written", {1101, 8, 33, 0.3, kWritten}, Keep::own_type, false);
  add("of confident rows in vectors", {19, 24, 1032, 4}, Keep::own_type, false);
  return cases;
}

}  // namespace tempora::test
