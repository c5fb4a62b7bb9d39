// Weights, and the products for batches of many rows: those of oneDNN.
#include "cpu_backend.h"
#include "views.h"
#include "weight.h"

namespace tempora {

std::unique_ptr<Weight> CpuBackend::make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const DType dtype = format == WeightFormat::f32 ? DType::f32 : DType::bf16;
  return std::make_unique<CpuWeight>(
      format, rows, cols, allocate(static_cast<std::size_t>(rows * cols) * size_of(dtype), MemoryUse::weights));
}

void CpuBackend::product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  matmul(x, weight.values(), out, {.transpose_b = true, .accumulate = accumulate});
}

void CpuBackend::transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) {
  matmul(d_out, weight.values(), d_x, {.accumulate = accumulate});
}

void CpuBackend::gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight) {
  require(d_weight.dtype == DType::f32, "gradient_product: the gradient is f32");
  matmul(d_out, x, d_weight, {.transpose_a = true, .accumulate = true});
}

}  // namespace tempora
