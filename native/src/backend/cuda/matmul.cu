#include <algorithm>
#include <cstdint>

#include "cuda_backend.h"

namespace tempora {
namespace {

// Bytes that an address is a multiple of, 16 at most: no algorithm wants more, and where in an arena a matrix lies
// should not choose another algorithm, that is, other bits.
std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(16, address & (~address + 1)));
}

}  // namespace

void CudaBackend::matmul(const Matrix& a, const Matrix& b, const Matrix& c, MatmulOptions options) {
  multiply(a, b, c, c, options);
}

// c = op(a) · op(b), or where it accumulates that + `added`, which lies as c does or is c.
void CudaBackend::multiply(const Matrix& a, const Matrix& b, const Matrix& added, const Matrix& c,
                           MatmulOptions options) {
  const std::int64_t k = options.transpose_a ? a.rows : a.cols;
  if (c.rows == 0 || c.cols == 0) return;
  if (k == 0) {
    for (std::int64_t r = 0; r < c.rows; ++r) {
      const Matrix row = c.row_range(r, 1);
      if (!options.accumulate) zero(row.data, row.bytes());
      if (options.accumulate && added.data != c.data) copy(row.data, added.row_range(r, 1).data, row.bytes());
    }
    return;
  }
  const DeviceProduct product{.m = c.rows,
                              .n = c.cols,
                              .k = k,
                              .a_stride = a.row_stride(),
                              .b_stride = b.row_stride(),
                              .c_stride = c.row_stride(),
                              .input = a.dtype,
                              .output = c.dtype,
                              .transpose_a = options.transpose_a,
                              .transpose_b = options.transpose_b,
                              .accumulate = options.accumulate,
                              .a_alignment = alignment_of(a.data),
                              .b_alignment = alignment_of(b.data),
                              .c_alignment = std::min(alignment_of(c.data), alignment_of(added.data))};
  if (!product_workspace_) {
    product_workspace_ = CudaBackend::allocate(CublasLt::kWorkspaceBytes, MemoryUse::workspace);
  }
  products_->run(product, a.data, b.data, added.data, c.data, product_workspace_.data(), stream_);
}

}  // namespace tempora
