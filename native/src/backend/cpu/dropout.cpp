#include "cpu_backend.h"
#include "dropout_row.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
void CpuBackend::dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) {
  require(out.dtype == DType::f32 && x.rows == out.rows && x.cols == out.cols, "dropout: out is f32 and as large as x");
  const auto kernel = dropout_kernels_for(isa_).forward[index_of(x.dtype)];
  parallel_ranges(threads_, x.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      kernel(x.row_range(r, 1).data, dropout_row(dropout, r), out.row_range(r, 1).f32(), x.cols);
    }
  });
}

void CpuBackend::dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) {
  require(d_out.dtype == DType::f32 && d_x.rows == d_out.rows && d_x.cols == d_out.cols,
          "dropout_backward: d_out is f32 and as large as d_x");
  const auto kernel = dropout_kernels_for(isa_).backward[index_of(d_x.dtype)];
  parallel_ranges(threads_, d_x.rows, row_grain(d_x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      kernel(d_out.row_range(r, 1).f32(), dropout_row(dropout, r), d_x.row_range(r, 1).data, d_x.cols);
    }
  });
}

void CpuBackend::scale(const Matrix& x, float factor) {
  require_dense("scale", {x});
  require(x.dtype == DType::f32 && x.dense(), "scale: x is f32 and dense");
  const auto kernel = element_kernels_for(isa_).scale;
  parallel_ranges(threads_, x.size(), kParallelGrain, 64,
                  [&](std::int64_t begin, std::int64_t end) { kernel(x.f32() + begin, factor, end - begin); });
}

}  // namespace tempora
