#include <omp.h>

#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "pair_product.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

// Columns of the widened part of one operand at a time.
constexpr std::int64_t kWidenedElements = std::int64_t{4} << 20;

// rows × cols of a strided bf16 matrix as f32, rows adjacent.
void widen(const ElementKernels& kernels, int threads, const void* from, std::int64_t row, float* to, std::int64_t rows,
           std::int64_t cols) {
  const std::uint16_t* source = static_cast<const std::uint16_t*>(from);
  parallel_ranges(threads, rows, row_grain(cols), 1, [=, &kernels](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) kernels.widen(source + r * row, to + r * cols, cols);
  });
}

Matrix strided(const void* data, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t row) {
  return {const_cast<void*>(data), dtype, rows, cols, row};
}

// Whether it was done by the kernels for pairs.
bool multiply_in_pairs(CpuBackend& backend, const Product& p, const void* a, const void* b, void* c) {
  const Matrix out = strided(c, p.out, p.m, p.n, p.row_c);
  if (!p.transpose_a) {
    const Matrix left = strided(a, p.in, p.m, p.k, p.row_a);
    const Matrix right = p.transpose_b ? strided(b, p.in, p.n, p.k, p.row_b) : strided(b, p.in, p.k, p.n, p.row_b);
    return add_up_pairs(backend, {{{{left, right}}, p.transpose_b, out, p.accumulate ? out : Matrix{}}});
  }
  if (p.transpose_b) return false;
  return add_pair_gradients(backend, strided(b, p.in, p.k, p.n, p.row_b),
                            {{strided(a, p.in, p.k, p.m, p.row_a), out, p.accumulate}});
}

}  // namespace

void CpuBackend::matmul(const Matrix& a, const Matrix& b, const Matrix& c, MatmulOptions options) {
  Product p;
  p.m = options.transpose_a ? a.cols : a.rows;
  p.k = options.transpose_a ? a.rows : a.cols;
  p.n = options.transpose_b ? b.rows : b.cols;
  require(p.k == (options.transpose_b ? b.cols : b.rows) && c.rows == p.m && c.cols == p.n,
          "matmul: the shapes do not fit");
  require(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == DType::f32), "matmul: the types do not fit");
  p.row_a = a.row_stride();
  p.row_b = b.row_stride();
  p.row_c = c.row_stride();
  p.in = a.dtype;
  p.out = c.dtype;
  p.transpose_a = options.transpose_a;
  p.transpose_b = options.transpose_b;
  p.accumulate = options.accumulate;
  multiply(p, a.data, b.data, c.data);
}

void CpuBackend::multiply(const Product& p, const void* a, const void* b, void* c) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (p.accumulate) return;
    for (std::int64_t r = 0; r < p.m; ++r) {
      std::memset(static_cast<char*>(c) + static_cast<std::size_t>(r * p.row_c) * size_of(p.out), 0,
                  static_cast<std::size_t>(p.n) * size_of(p.out));
    }
    return;
  }
  if (multiply_in_pairs(*this, p, a, b, c)) return;
  if (p.in == DType::bf16 && !native_bf16_) return widened_product(p, a, b, c);
  // oneDNN takes the calling thread's setting, and the cores of threads that are awake.
  if (omp_get_max_threads() != threads_) omp_set_num_threads(threads_);
  if (active_team != nullptr) active_team->rest();
  products_.run(*this, p, a, b, c);
  if (active_team != nullptr) active_team->stay_awake();
}

// a is widened whole, b in blocks of columns; a bf16 result is rounded once, from a f32 block.
void CpuBackend::widened_product(const Product& p, const void* a, const void* b, void* c) {
  const ElementKernels& kernels = element_kernels_for(isa_);
  const std::int64_t rows_a = p.transpose_a ? p.k : p.m, cols_a = p.transpose_a ? p.m : p.k;
  const Buffer wide_a = workspace(static_cast<std::size_t>(p.m * p.k) * sizeof(float));
  widen(kernels, threads_, a, p.row_a, static_cast<float*>(wide_a.data()), rows_a, cols_a);

  const std::int64_t block = std::min(p.n, std::max<std::int64_t>(64, kWidenedElements / p.k / 64 * 64));
  const Buffer wide_b = workspace(static_cast<std::size_t>(block * p.k) * sizeof(float));
  const bool narrow = p.out == DType::bf16;
  const Buffer wide_c = workspace(narrow ? static_cast<std::size_t>(p.m * block) * sizeof(float) : 0);
  float* c_block = static_cast<float*>(wide_c.data());
  for (std::int64_t first = 0; first < p.n; first += block) {
    const std::int64_t count = std::min(block, p.n - first);
    const std::int64_t rows_b = p.transpose_b ? count : p.k, cols_b = p.transpose_b ? p.k : count;
    widen(kernels, threads_, element(b, DType::bf16, p.transpose_b ? first * p.row_b : first), p.row_b,
          static_cast<float*>(wide_b.data()), rows_b, cols_b);
    Product wide = p;
    wide.n = count;
    wide.in = wide.out = DType::f32;
    wide.row_a = cols_a;
    wide.row_b = cols_b;
    std::uint16_t* narrow_c = static_cast<std::uint16_t*>(c) + first;
    if (!narrow) {
      multiply(wide, wide_a.data(), wide_b.data(), static_cast<float*>(c) + first);
      continue;
    }
    wide.row_c = count;
    if (p.accumulate) widen(kernels, threads_, narrow_c, p.row_c, c_block, p.m, count);
    multiply(wide, wide_a.data(), wide_b.data(), c_block);
    for (std::int64_t r = 0; r < p.m; ++r) kernels.narrow(c_block + r * count, narrow_c + r * p.row_c, count);
  }
}

}  // namespace tempora
