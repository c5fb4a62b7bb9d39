// Weights, and the products for batches of many rows: those of cuBLASLt.
#include "cuda_backend.h"

namespace tempora {

std::unique_ptr<Weight> CudaBackend::make_weight(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const DType dtype = format == WeightFormat::f32 ? DType::f32 : DType::bf16;
  return std::make_unique<Weight>(format, rows, cols,
                                  allocate(static_cast<std::size_t>(rows * cols) * size_of(dtype), MemoryUse::weights));
}

void CudaBackend::product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  matmul(x, weight.values(), out, {.transpose_b = true, .accumulate = accumulate});
}

void CudaBackend::transposed_product(const Matrix& d_out, const Weight& weight, const Matrix& d_x, bool accumulate) {
  matmul(d_out, weight.values(), d_x, {.accumulate = accumulate});
}

void CudaBackend::gradient_product(const Matrix& d_out, const Matrix& x, const Matrix& d_weight) {
  matmul(d_out, x, d_weight, {.transpose_a = true, .accumulate = true});
}

}  // namespace tempora
