#include <algorithm>
#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

void CpuBackend::gather_rows(const Matrix& x, const std::int32_t* rows, const Matrix& out) {
  require_dense("gather_rows", {x, out});
  require(x.dtype == out.dtype && x.cols == out.cols, "gather_rows: one type and one width");
  const std::size_t bytes = static_cast<std::size_t>(x.cols) * size_of(x.dtype);
  parallel_ranges(threads_, out.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memcpy(element(out, r * out.cols), element(x, rows[r] * x.cols), bytes);
    }
  });
}

void CpuBackend::scatter_add_rows(const Matrix& d_out, const std::int32_t* rows, const Matrix& x) {
  require_dense("scatter_add_rows", {d_out, x});
  require(x.dtype == d_out.dtype && x.cols == d_out.cols, "scatter_add_rows: one type and one width");
  const auto add = element_kernels_for(isa_).add[index_of(x.dtype)];
  parallel_ranges(threads_, d_out.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) add(element(x, rows[r] * x.cols), element(d_out, r * x.cols), x.cols);
  });
}

void CpuBackend::continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                                 std::int32_t* tokens) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (from[i] >= 0) tokens[i] = std::max(0, sampled[from[i]]);
  }
}

}  // namespace tempora
