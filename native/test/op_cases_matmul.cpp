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

}  // namespace

std::vector<OpCase> matmul_cases() {
  struct Shape {
    std::int64_t m, n, k;
  };
  std::vector<OpCase> cases;
  for (const Shape s : {Shape{37, 51, 24}, Shape{1, 511, 80}, Shape{5, 1, 3}, Shape{130, 96, 129}, Shape{1, 1, 1}}) {
    const std::string size = std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k);
    cases.push_back({"matmul " + size, [s](Device& device, DType dtype) {
                       for (int bits = 0; bits < 8; ++bits) {
                         const MatmulOptions options{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
                         check_matmul(device, dtype, dtype, s.m, s.n, s.k, options);
                         if (dtype != DType::f32) check_matmul(device, dtype, DType::f32, s.m, s.n, s.k, options);
                       }
                     }});
  }
  cases.push_back({"matmul of nothing", [](Device& device, DType dtype) {
                     check_matmul(device, dtype, DType::f32, 3, 5, 0, {});
                     check_matmul(device, dtype, DType::f32, 3, 5, 0, {.accumulate = true});
                     check_matmul(device, dtype, dtype, 0, 5, 4, {.transpose_b = true});
                     check_matmul(device, dtype, dtype, 3, 0, 4, {.transpose_a = true});
                   }});
  return cases;
}

}  // namespace tempora::test
