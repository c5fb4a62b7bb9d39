#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

void CpuBackend::embed(const std::int32_t* tokens, const Weight& weight, const Matrix& out) {
  require_dense("embed", {out});
  const Matrix table = weight.values();
  require(out.dtype == DType::f32 && table.cols == out.cols, "embed: out is f32 and as wide as the table");
  const ElementKernels& kernels = element_kernels_for(isa_);
  const std::int64_t cols = out.cols;
  parallel_ranges(threads_, out.rows, row_grain(cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const void* row = element(table, tokens[t] * cols);
      if (table.dtype == DType::f32) {
        std::memcpy(out.f32() + t * cols, row, static_cast<std::size_t>(cols) * sizeof(float));
      } else {
        kernels.widen(static_cast<const std::uint16_t*>(row), out.f32() + t * cols, cols);
      }
    }
  });
}

void CpuBackend::embed_backward(const std::int32_t* tokens, const Matrix& d_out, const Matrix& d_table) {
  require_dense("embed_backward", {d_out, d_table});
  require(d_out.dtype == DType::f32 && d_table.dtype == DType::f32 && d_out.cols == d_table.cols,
          "embed_backward: both are f32 and one width");
  const auto add = element_kernels_for(isa_).add[index_of(DType::f32)];
  const std::int64_t cols = d_out.cols;
  // A thread takes some columns of every token: tokens are added in their order, whoever comes first.
  const std::int64_t grain = d_out.size() < kParallelGrain ? cols + 1 : 2;
  parallel_ranges(threads_, cols, grain, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < d_out.rows; ++t) {
      add(d_table.f32() + tokens[t] * cols + begin, d_out.f32() + t * cols + begin, end - begin);
    }
  });
}

}  // namespace tempora
