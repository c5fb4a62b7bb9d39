#include <algorithm>
#include <cstring>

#include "cpu_backend.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

std::size_t row_bytes(const Matrix& x) { return static_cast<std::size_t>(x.cols) * size_of(x.dtype); }

}  // namespace

void CpuBackend::gather_rows(const Matrix& x, const std::int32_t* rows, const Matrix& out) {
  require_dense("gather_rows", {x, out});
  require(x.dtype == out.dtype && x.cols == out.cols, "gather_rows: one type and one width");
  const std::size_t bytes = row_bytes(x);
  parallel_ranges(threads_, out.rows, row_grain(x.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memcpy(element(out, r * out.cols), element(x, rows[r] * x.cols), bytes);
    }
  });
}

void CpuBackend::scatter_rows(const Matrix& part, const std::int32_t* rows, const Matrix& whole) {
  require_dense("scatter_rows", {part, whole});
  require(whole.dtype == part.dtype && whole.cols == part.cols, "scatter_rows: one type and one width");
  zero(whole.data, whole.bytes());
  const std::size_t bytes = row_bytes(whole);
  parallel_ranges(threads_, part.rows, row_grain(whole.cols), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      std::memcpy(element(whole, rows[r] * whole.cols), element(part, r * part.cols), bytes);
    }
  });
}

void CpuBackend::continue_tokens(const std::int32_t* sampled, const std::int32_t* from, std::int64_t count,
                                 std::int32_t* tokens) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (from[i] >= 0) tokens[i] = std::max(0, sampled[from[i]]);
  }
}

}  // namespace tempora
