#include "cpu_backend.h"
#include "kernels/norm.h"
#include "parallel.h"
#include "row_sums.h"
#include "views.h"

namespace tempora {

void CpuBackend::add_bias(const Matrix& x, const void* bias, DType bias_dtype) {
  require_dense("add_bias", {x});
  const auto kernel = norm_kernels_for(isa_).add_bias[index_of(x.dtype)][index_of(bias_dtype)];
  parallel_ranges(threads_, x.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    kernel(element(x, begin * x.cols), bias, end - begin, x.cols);
  });
}

void CpuBackend::bias_backward(const Matrix& d_y, float* d_bias) {
  require_dense("bias_backward", {d_y});
  const auto kernel = norm_kernels_for(isa_).column_sums[index_of(d_y.dtype)];
  sum_over_rows(*this, d_y.rows, d_y.cols, d_bias, [&](std::int64_t begin, std::int64_t end, float* partial) {
    kernel(element(d_y, begin * d_y.cols), partial, end - begin, d_y.cols);
  });
}

}  // namespace tempora
