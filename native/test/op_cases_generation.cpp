#include <cmath>
#include <limits>

#include "op_cases.h"
#include "reference.h"

namespace tempora::test {
namespace {

void check_row_product(Device& device, DType dtype, std::int64_t n, std::int64_t k) {
  Random random(31);
  const Tensor weight = device.random(random, n, k, dtype);
  const auto handle = device.weight(weight);
  for (const std::int64_t m : {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 28, 64, 0}) {
    for (const DType out_type : {DType::f32, dtype}) {
      for (const bool accumulate : {false, true}) {
        Random same(32);  // the first rows are the same for every m
        const Tensor x = device.random(same, m, k, dtype);
        const Tensor out = accumulate ? device.random(random, m, n, out_type) : device.output(m, n, out_type);
        std::vector<double> want = reference::matmul(x.values, false, weight.values, true, m, n, k);
        if (accumulate) {
          for (std::size_t i = 0; i < want.size(); ++i) want[i] += out.values[i];
        }
        device.backend.row_product(x.matrix, *handle, out.matrix, accumulate);
        const std::vector<double> got = device.read(out);
        expect_close("out of " + std::to_string(m) + " rows", got, want, tolerance_of(out_type));
        if (m < 3 || accumulate || out_type != DType::f32) continue;
        // Row 2 by itself gives the same bits as among m.
        const Tensor alone = device.output(1, n, DType::f32);
        device.backend.row_product(x.matrix.row_range(2, 1), *handle, alone.matrix, false);
        const std::vector<double> row(got.begin() + 2 * n, got.begin() + 3 * n);
        expect(device.read(alone) == row, "a row alone differs from the same row among " + std::to_string(m));
      }
    }
  }
}

// So many rows and inputs that a device divides the work otherwise than for one row.
void check_many_rows(Device& device, DType dtype, std::int64_t m, std::int64_t n, std::int64_t k) {
  Random random(33);
  const Tensor weight = device.random(random, n, k, dtype), x = device.random(random, m, k, dtype);
  const auto handle = device.weight(weight);
  const Tensor out = device.output(m, n, DType::f32);
  device.backend.row_product(x.matrix, *handle, out.matrix, false);
  const std::vector<double> got = device.read(out);
  expect_close("out", got, reference::matmul(x.values, false, weight.values, true, m, n, k), tolerance_of(DType::f32));
  for (const std::int64_t rows : {1, 10, 20, 50, 100, 120}) {
    const Tensor few = device.output(rows, n, DType::f32);
    device.backend.row_product(x.matrix.row_range(400, rows), *handle, few.matrix, false);
    const std::vector<double> same(got.begin() + 400 * n, got.begin() + (400 + rows) * n);
    expect(device.read(few) == same, std::to_string(rows) + " rows differ from the same rows among many");
  }
}

// Weights of one x at once, which lie apart and of which one may be quantised, give the bits of each by itself.
void check_row_products(Device& device, DType dtype, WeightFormat middle) {
  constexpr std::int64_t k = 72;
  Random random(34);
  std::vector<std::unique_ptr<Weight>> weights;
  for (const std::int64_t n : {300, 65, 7}) {
    const Tensor numbers = device.random(random, n, k, DType::f32);
    weights.push_back(device.backend.make_weight(weights.size() == 1 ? middle : format_of(dtype), n, k));
    std::vector<std::uint8_t> bytes(numbers.matrix.bytes());
    device.backend.copy_out(bytes.data(), numbers.matrix.data, bytes.size());
    expect(device.backend.set_weight(*weights.back(), DType::f32, bytes.data()), "random numbers are finite");
  }
  for (const std::int64_t m : {0, 1, 7, 28, 130}) {
    const Tensor x = device.random(random, m, k, dtype);
    // The second result lies within a wider matrix.
    const Tensor first = device.output(m, 300, dtype), wide = device.output(m, 80, DType::f32);
    const Tensor third = device.output(m, 7, dtype);
    const std::vector<Matrix> outs{first.matrix, wide.matrix.column_range(9, 65), third.matrix};
    device.backend.row_products(x.matrix, {{*weights[0], outs[0]}, {*weights[1], outs[1]}, {*weights[2], outs[2]}});
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const Tensor alone = device.output(m, weights[i]->rows, outs[i].dtype);
      device.backend.row_product(x.matrix, *weights[i], alone.matrix, false);
      expect(device.read(outs[i]) == device.read(alone),
             "weight " + std::to_string(i) + " gives other bits among others, " + std::to_string(m) + " rows");
    }
  }
}

// Of one type, which a backend may take for one wide weight: it must divide each weight's work as if it were alone.
void check_row_products_together(Device& device, DType dtype, const std::vector<std::int64_t>& outputs, std::int64_t k,
                                 const std::vector<std::int64_t>& row_counts) {
  Random random(35);
  std::vector<std::unique_ptr<Weight>> weights;
  for (const std::int64_t n : outputs) weights.push_back(device.weight(device.random(random, n, k, dtype, 0.1)));
  for (const std::int64_t m : row_counts) {
    const Tensor x = device.random(random, m, k, dtype);
    std::vector<Tensor> outs;
    std::vector<WeightProduct> products;
    for (const auto& weight : weights) {
      outs.push_back(device.output(m, weight->rows, dtype));
      products.push_back({*weight, outs.back().matrix});
    }
    device.backend.row_products(x.matrix, products);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const Tensor alone = device.output(m, weights[i]->rows, dtype);
      device.backend.row_product(x.matrix, *weights[i], alone.matrix, false);
      expect(device.read(outs[i]) == device.read(alone),
             "weight " + std::to_string(i) + " gives other bits among others, " + std::to_string(m) + " rows");
    }
  }
}

struct SamplingCase {
  std::int64_t vocab;
  double scale;
  SamplingOptions options;
};

struct Drawn {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
};

Drawn draw(Backend& backend, const Matrix& logits, const SamplingOptions& options,
           const std::vector<double>& uniforms) {
  const std::size_t rows = uniforms.size();
  Drawn drawn{std::vector<std::int32_t>(rows, -7), std::vector<float>(rows, std::nanf(""))};
  const Buffer numbers = backend.allocate(rows * sizeof(double), MemoryUse::workspace);
  const Buffer tokens = backend.allocate(rows * sizeof(std::int32_t), MemoryUse::workspace);
  const Buffer log_probs = backend.allocate(rows * sizeof(float), MemoryUse::workspace);
  backend.copy_in(numbers.data(), uniforms.data(), numbers.bytes());
  backend.sample(logits, options, static_cast<const double*>(numbers.data()), static_cast<std::int32_t*>(tokens.data()),
                 static_cast<float*>(log_probs.data()));
  backend.copy_out(drawn.tokens.data(), tokens.data(), tokens.bytes());
  backend.copy_out(drawn.log_probs.data(), log_probs.data(), log_probs.bytes());
  return drawn;
}

// Uniforms on a grid walk through the distribution: each token must be drawn in proportion to its probability, and
// tokens in order of their ids.
void check_sampling(Device& device, const SamplingCase& c, std::int64_t draws) {
  Random random(41);
  std::vector<double> row = random.normals(c.vocab, c.scale);
  for (std::int64_t i = 0; i + 7 < c.vocab; i += 11) row[i + 3] = row[i];  // equals
  std::vector<double> rows;
  std::vector<double> uniforms;
  for (std::int64_t i = 0; i < draws; ++i) {
    rows.insert(rows.end(), row.begin(), row.end());
    uniforms.push_back((static_cast<double>(i) + 0.5) / static_cast<double>(draws));
  }
  const Tensor logits = device.upload(draws, c.vocab, DType::f32, rows);
  const auto [tokens, log_prob] = draw(device.backend, logits.matrix, c.options, uniforms);
  device.note(tokens);
  device.note(log_prob);

  const std::vector<double> values(logits.values.begin(), logits.values.begin() + c.vocab);
  const auto probability =
      reference::sampling_distribution(values, c.options.temperature, c.options.top_k, c.options.top_p);
  const auto raw = reference::log_softmax(values, c.vocab);
  std::vector<double> below(probability.size() + 1);
  for (std::size_t i = 0; i < probability.size(); ++i) below[i + 1] = below[i] + probability[i];
  for (std::int64_t i = 0; i < draws; ++i) {
    const std::int32_t token = tokens[i];
    const std::string where = "token " + std::to_string(token) + " for uniform " + std::to_string(uniforms[i]);
    expect(token >= 0 && token < c.vocab && probability[token] > 0, where + " is cut off");
    expect(uniforms[i] > below[token] - 1e-4 && uniforms[i] < below[token + 1] + 1e-4, where + " is not its turn");
    expect_close("log_prob", {log_prob[i]}, {raw[token]}, 1e-5);
  }
}

void check_bad_logits(Device& device) {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    std::vector<double> rows(900, 0.5);
    rows[377] = bad;
    const Tensor logits = device.upload(3, 300, DType::f32, rows);
    for (const float temperature : {0.0f, 1.0f}) {
      const Drawn drawn = draw(device.backend, logits.matrix, {temperature, 0, 1}, {0.5, 0.5, 0.5});
      expect(drawn.tokens[1] == -1, "a row with a logit that is not finite was sampled");
      expect(drawn.tokens[0] >= 0 && drawn.tokens[2] >= 0, "rows beside it were not");
      device.note(drawn.tokens);
      device.note(drawn.log_probs);
    }
  }
}

}  // namespace

std::vector<OpCase> generation_cases() {
  std::vector<OpCase> cases = {
      {"row_product 511x24", [](Device& device, DType dtype) { check_row_product(device, dtype, 511, 24); }},
      {"row_product 96x129", [](Device& device, DType dtype) { check_row_product(device, dtype, 96, 129); }},
      {"row_product of many tiles",
       [](Device& device, DType dtype) { check_many_rows(device, dtype, 520, 1700, 528); }},
      {"row_product of few inputs", [](Device& device, DType dtype) { check_many_rows(device, dtype, 600, 520, 136); }},
      {"row_products", [](Device& device, DType dtype) { check_row_products(device, dtype, format_of(dtype)); }},
      {"row_products, one of them quantised",
       [](Device& device, DType dtype) { check_row_products(device, dtype, WeightFormat::nf4); }},
      {"row_products of one type",
       [](Device& device, DType dtype) {
         check_row_products_together(device, dtype, {200, 72, 130}, 1096, {0, 3, 20, 130});
         check_row_products_together(device, dtype, {24, 520}, 600, {3, 70});
       }},
      // Together they have so many that no sums lie apart, alone they have not.
      {"row_products of many tiles",
       [](Device& device, DType dtype) {
         check_row_products_together(device, dtype, {650, 260, 300}, 520, {520});
       }},
      // As wide as both, a weight would have fewer splits.
      {"row_products of many tiles, few rows",
       [](Device& device, DType dtype) {
         check_row_products_together(device, dtype, {2200, 2130}, 1096, {2});
       }},
      {"row_product 1x3", [](Device& device, DType dtype) { check_row_product(device, dtype, 1, 3); }},
  };
  for (OpCase& op_case : sampling_cases(256)) cases.push_back(std::move(op_case));
  return cases;
}

std::vector<OpCase> sampling_cases(std::int64_t draws) {
  std::vector<OpCase> cases = {
      {"sample tells NaN", [](Device& device, DType) { check_bad_logits(device); }},
  };
  const auto add = [&](const std::string& name, const SamplingCase& c) {
    cases.push_back({"sample " + name, [=](Device& device, DType) { check_sampling(device, c, draws); }});
  };
  add("greedily", {3001, 2, {0, 0, 1}});
  add("the whole", {3001, 2, {1, 0, 1}});
  add("hot", {511, 2, {1.7f, 0, 1}});
  add("top 5", {3001, 2, {0.8f, 5, 1}});
  add("top 300", {3001, 2, {1, 300, 1}});
  add("top 5 of 3", {3, 2, {1, 5, 1}});
  add("top 1", {70, 2, {1, 1, 1}});
  add("top p 0.9", {3001, 2, {1, 0, 0.9f}});
  add("top p 0.5 of a flat row", {3001, 0.01, {1, 0, 0.5f}});
  add("top p 0.5 of equals", {3001, 0, {1, 0, 0.5f}});
  add("top p 0 is the best", {130, 2, {1, 0, 0}});
  add("top 40, top p 0.6, cold", {3001, 2, {0.5f, 40, 0.6f}});
  add("a vocabulary of one", {1, 1, {1, 0, 0.9f}});
  const SamplingCase wide{40004, 2, {0.9f, 3000, 0.95f}};
  cases.push_back({"sample a wide vocabulary", [=](Device& device, DType) { check_sampling(device, wide, 8); }});
  return cases;
}

}  // namespace tempora::test
