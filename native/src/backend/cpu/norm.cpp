#include "kernels/norm.h"
#include "cpu_backend.h"
#include "parallel.h"
#include "row_sums.h"
#include "views.h"

namespace tempora {

void CpuBackend::rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) {
  require_dense("rms_norm", {x, y});
  require(x.dtype == DType::f32 && x.size() == y.size(), "rms_norm: x is f32 and as large as y");
  const auto kernel = norm_kernels_for(isa_).rms_norm[index_of(y.dtype)];
  parallel_ranges(threads_, x.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    kernel(x.f32() + begin * x.cols, weight, eps, element(y, begin * x.cols), rstd + begin, end - begin, x.cols);
  });
}

void CpuBackend::rms_norm_backward(const Matrix& x, const void* weight, DType weight_dtype, const float* rstd,
                                   const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("rms_norm_backward", {x, d_y, d_x});
  require(x.dtype == DType::f32 && d_y.dtype == DType::f32 && d_x.dtype == DType::f32,
          "rms_norm_backward: x and the gradients are f32");
  const auto kernel = norm_kernels_for(isa_).rms_norm_backward[index_of(weight_dtype)];
  sum_over_rows(*this, x.rows, x.cols, d_weight, [&](std::int64_t begin, std::int64_t end, float* partial) {
    const std::int64_t first = begin * x.cols;
    kernel(x.f32() + first, weight, rstd + begin, d_y.f32() + first, nullptr, d_x.f32() + first, nullptr, partial,
           end - begin, x.cols);
  });
}

void CpuBackend::recomputed_norm_backward(const RecomputedNorm& norm) {
  const Matrix &x = norm.x, &d_y = norm.d_y, &d_x = norm.d_x, &y = norm.y, &rounded = norm.rounded;
  require_dense("recomputed_norm_backward", {x, d_y, y, d_x, rounded});
  require(x.dtype == DType::f32 && d_y.dtype == DType::f32 && d_x.dtype == DType::f32,
          "recomputed_norm_backward: x and the gradients are f32");
  require(y.size() == x.size() && (rounded.data == nullptr || (rounded.dtype == y.dtype && rounded.size() == x.size())),
          "recomputed_norm_backward: y and the rounded gradient have one type and x's size");
  const auto kernel = norm_kernels_for(isa_).rms_norm_backward[index_of(y.dtype)];
  sum_over_rows(*this, x.rows, x.cols, norm.d_weight, [&](std::int64_t begin, std::int64_t end, float* partial) {
    const std::int64_t first = begin * x.cols;
    kernel(x.f32() + first, norm.weight, norm.rstd + begin, d_y.f32() + first, element(y, first), d_x.f32() + first,
           rounded.data == nullptr ? nullptr : element(rounded, first), partial, end - begin, x.cols);
  });
}

void CpuBackend::head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y, float* rstd) {
  require_dense("head_norm", {x, y});
  require(x.dtype == y.dtype && x.cols % head_dim == 0, "head_norm: x and y have one type and whole heads");
  const auto kernel = norm_kernels_for(isa_).head_norm[index_of(y.dtype)];
  parallel_ranges(threads_, x.size() / head_dim, row_grain(head_dim), 1, [&](std::int64_t begin, std::int64_t end) {
    kernel(element(x, begin * head_dim), weight, eps, element(y, begin * head_dim), rstd + begin, end - begin,
           head_dim);
  });
}

void CpuBackend::head_norm_backward(const Matrix& x, int head_dim, const void* weight, const float* rstd,
                                    const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("head_norm_backward", {x, d_y, d_x});
  require(x.dtype == d_y.dtype && x.dtype == d_x.dtype && x.cols % head_dim == 0,
          "head_norm_backward: all have one type and whole heads");
  const auto kernel = norm_kernels_for(isa_).head_norm_backward[index_of(x.dtype)];
  sum_over_rows(*this, x.size() / head_dim, head_dim, d_weight,
                [&](std::int64_t begin, std::int64_t end, float* partial) {
                  const std::int64_t first = begin * head_dim;
                  kernel(element(x, first), weight, rstd + begin, element(d_y, first), element(d_x, first), partial,
                         end - begin, head_dim);
                });
}

}  // namespace tempora
