// A small test runner, comparison of numbers, and host data on a backend. Outputs are poisoned with NaN before an
// operation writes them, and everything read back is noted, so that a case can be run twice and compared bit by bit.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace tempora::test {

class TestFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs named cases and counts. A case fails by throwing.
class TestRun {
 public:
  // argv[1], where given: only cases whose names contain it.
  TestRun(int argc, char** argv);
  void run(const std::string& name, const std::function<void()>& body);
  // Prints "N passed, N failed"; the exit code. No case at all is a failure too.
  int finish() const;

 private:
  std::string filter_;
  int passed_ = 0;
  int failed_ = 0;
};

void expect(bool holds, const std::string& what);

// Fails unless |got - want| <= tolerance · (|want| + the root mean square of want) everywhere.
void expect_close(const std::string& what, const std::vector<double>& got, const std::vector<double>& want,
                  double tolerance);

// The tolerance of a result that is rounded to `dtype` once, from sums in f32.
double tolerance_of(DType dtype);

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  double uniform();  // [0, 1)
  double normal();
  std::int64_t below(std::int64_t bound);
  std::vector<double> normals(std::int64_t count, double scale = 1);
  std::vector<std::int32_t> tokens(std::int64_t count, std::int64_t vocab);

 private:
  std::uint64_t state_;
};

// A matrix on a backend and its host values, rounded as the backend has them.
struct Tensor {
  Buffer buffer;
  Matrix matrix;
  std::vector<double> values;
};

struct Ints {
  Buffer buffer;
  const std::int32_t* data() const { return static_cast<const std::int32_t*>(buffer.data()); }
};

class Device {
 public:
  explicit Device(Backend& backend) : backend(backend) {}

  Tensor upload(std::int64_t rows, std::int64_t cols, DType dtype, const std::vector<double>& values);
  Tensor random(Random& random, std::int64_t rows, std::int64_t cols, DType dtype, double scale = 1);
  Tensor output(std::int64_t rows, std::int64_t cols, DType dtype);  // all NaN
  Ints ints(const std::vector<std::int32_t>& values);
  // A weight with a tensor's numbers.
  std::unique_ptr<Weight> weight(const Tensor& tensor);
  std::vector<double> read(const Matrix& matrix);  // rows may lie apart
  std::vector<double> read(const Tensor& tensor) { return read(tensor.matrix); }
  // Notes host results, for the comparison of two runs.
  template <typename T>
  void note(const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(values.data());
    read_back.insert(read_back.end(), bytes, bytes + values.size() * sizeof(T));
  }

  Backend& backend;
  std::vector<std::uint8_t> read_back;  // the bits of all that was read
};

double round_to(DType dtype, double value);

// d f / d x by central differences; f gets x with one element moved.
std::vector<double> numeric_gradient(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x,
                                     double step = 1e-5);

double dot(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace tempora::test
