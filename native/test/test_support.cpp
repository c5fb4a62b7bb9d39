#include "test_support.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numbers>

#include "forest/random.h"

namespace tempora::test {

TestRun::TestRun(int argc, char** argv) : filter_(argc > 1 ? argv[1] : "") {}

void TestRun::run(const std::string& name, const std::function<void()>& body) {
  if (name.find(filter_) == std::string::npos) return;
  const auto start = std::chrono::steady_clock::now();
  try {
    body();
    ++passed_;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("ok    %s (%.2f s)\n", name.c_str(), seconds.count());
  } catch (const std::exception& error) {
    ++failed_;
    std::printf("FAIL  %s: %s\n", name.c_str(), error.what());
  }
  std::fflush(stdout);
}

int TestRun::finish() const {
  std::printf("%d passed, %d failed\n", passed_, failed_);
  return failed_ == 0 && passed_ > 0 ? 0 : 1;
}

void expect(bool holds, const std::string& what) {
  if (!holds) throw TestFailure(what);
}

void expect_close(const std::string& what, const std::vector<double>& got, const std::vector<double>& want,
                  double tolerance) {
  expect(got.size() == want.size(),
         what + ": " + std::to_string(got.size()) + " values instead of " + std::to_string(want.size()));
  double squares = 0;
  for (const double w : want) squares += w * w;
  const double scale = want.empty() ? 0 : std::sqrt(squares / static_cast<double>(want.size()));
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double allowed = tolerance * (std::abs(want[i]) + scale) + std::numeric_limits<double>::min();
    if (std::abs(got[i] - want[i]) <= allowed) continue;  // false for NaN
    char text[160];
    std::snprintf(text, sizeof text, "[%zu of %zu] is %.9g, not %.9g (off by %.3g, allowed %.3g)", i, want.size(),
                  got[i], want[i], std::abs(got[i] - want[i]), allowed);
    throw TestFailure(what + text);
  }
}

double tolerance_of(DType dtype) { return dtype == DType::f32 ? 2e-5 : 6e-3; }

double Random::uniform() { return unit_interval(mix64(state_++)); }

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

std::int64_t Random::below(std::int64_t bound) {
  return static_cast<std::int64_t>(uniform() * static_cast<double>(bound));
}

std::vector<double> Random::normals(std::int64_t count, double scale) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = scale * normal();
  return values;
}

std::vector<std::int32_t> Random::tokens(std::int64_t count, std::int64_t vocab) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(below(vocab));
  return tokens;
}

namespace {

std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) return 0x7FC0;
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<std::uint8_t> encode(DType dtype, const std::vector<double>& values) {
  std::vector<std::uint8_t> bytes(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float value = static_cast<float>(values[i]);
    if (dtype == DType::f32) {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    } else {
      const std::uint16_t half = to_bf16(value);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

std::vector<double> decode(DType dtype, const std::vector<std::uint8_t>& bytes) {
  std::vector<double> values(bytes.size() / size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::f32) {
      float value;
      std::memcpy(&value, bytes.data() + 4 * i, 4);
      values[i] = value;
    } else {
      std::uint16_t half;
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      values[i] = from_bf16(half);
    }
  }
  return values;
}

}  // namespace

double round_to(DType dtype, double value) {
  const float single = static_cast<float>(value);
  return dtype == DType::f32 ? single : from_bf16(to_bf16(single));
}

Tensor Device::upload(std::int64_t rows, std::int64_t cols, DType dtype, const std::vector<double>& values) {
  const std::vector<std::uint8_t> bytes = encode(dtype, values);
  Tensor tensor;
  tensor.buffer = backend.allocate(bytes.size(), MemoryUse::workspace);
  tensor.matrix = {tensor.buffer.data(), dtype, rows, cols};
  tensor.values = decode(dtype, bytes);
  backend.copy_in(tensor.buffer.data(), bytes.data(), bytes.size());
  return tensor;
}

Tensor Device::random(Random& random, std::int64_t rows, std::int64_t cols, DType dtype, double scale) {
  return upload(rows, cols, dtype, random.normals(rows * cols, scale));
}

Tensor Device::output(std::int64_t rows, std::int64_t cols, DType dtype) {
  const std::vector<double> poison(static_cast<std::size_t>(rows * cols), std::numeric_limits<double>::quiet_NaN());
  return upload(rows, cols, dtype, poison);
}

Ints Device::ints(const std::vector<std::int32_t>& values) {
  Ints ints{backend.allocate(std::max<std::size_t>(4, values.size() * 4), MemoryUse::workspace)};
  if (!values.empty()) backend.copy_in(ints.buffer.data(), values.data(), values.size() * 4);
  return ints;
}

std::unique_ptr<Weight> Device::weight(const Tensor& tensor) {
  const Matrix& from = tensor.matrix;
  auto weight = backend.make_weight(format_of(from.dtype), from.rows, from.cols);
  backend.copy(weight->storage.data(), from.data, from.bytes());
  weight->changed();
  return weight;
}

std::vector<double> Device::read(const Matrix& matrix) {
  std::vector<std::uint8_t> bytes(matrix.bytes());
  if (matrix.dense()) {
    backend.copy_out(bytes.data(), matrix.data, bytes.size());
  } else {
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      const Matrix row = matrix.row_range(r, 1);
      backend.copy_out(bytes.data() + static_cast<std::size_t>(r) * row.bytes(), row.data, row.bytes());
    }
  }
  note(bytes);
  return decode(matrix.dtype, bytes);
}

std::vector<double> numeric_gradient(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x,
                                     double step) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    x[i] = at + step;
    const double above = f(x);
    x[i] = at - step;
    gradient[i] = (above - f(x)) / (2 * step);
    x[i] = at;
  }
  return gradient;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace tempora::test
