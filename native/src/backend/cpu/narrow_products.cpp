// The products of adapters: a few rows at a time are widened, and meet the narrow side while they are in the caches.
#include <cstring>

#include "cpu_backend.h"
#include "dropout_row.h"
#include "kernels/elements.h"
#include "kernels/narrow.h"
#include "parallel.h"
#include "thread_scratch.h"
#include "views.h"

namespace tempora {
namespace {

constexpr std::int64_t kRowsAtOnce = 32;
// Blocks of rows whose gradients are summed by themselves: fixed, so that bits do not depend on the threads.
constexpr std::int64_t kMostBlocks = 16;

std::int64_t padded(std::int64_t n) { return (n + kNarrowUnit - 1) / kNarrowUnit * kNarrowUnit; }

// Some rows of a matrix as f32 after dropout.
struct WideRows {
  const float* data;
  std::int64_t apart;
};

WideRows wide_rows(Isa isa, const Matrix& x, const Dropout& dropout, std::int64_t begin, std::int64_t count,
                   float* scratch) {
  const std::int64_t apart = padded(x.cols);
  if (dropout.rate <= 0 && x.dtype == DType::bf16) {
    const auto widen = element_kernels_for(isa).widen;
    for (std::int64_t r = 0; r < count; ++r) {
      widen(static_cast<const std::uint16_t*>(x.row_range(begin + r, 1).data), scratch + r * apart, x.cols);
    }
    return {scratch, apart};
  }
  const auto kernel = dropout_kernels_for(isa).forward[index_of(x.dtype)];
  for (std::int64_t r = 0; r < count; ++r) {
    kernel(x.row_range(begin + r, 1).data, dropout_row(dropout, begin + r), scratch + r * apart, x.cols);
  }
  return {scratch, apart};
}

// A narrow matrix [rows, r] with its rows padded.
void pad_rows(const float* from, std::int64_t row, std::int64_t rows, std::int64_t cols, float* to) {
  const std::int64_t apart = padded(cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * apart, from + r * row, static_cast<std::size_t>(cols) * sizeof(float));
    std::memset(to + r * apart + cols, 0, static_cast<std::size_t>(apart - cols) * sizeof(float));
  }
}

// [r, K] as [K, r padded], rows [begin, end) of it.
void turn_over(const float* from, std::int64_t r, std::int64_t k, std::int64_t begin, std::int64_t end, float* to) {
  const std::int64_t apart = padded(r);
  for (std::int64_t i = begin; i < end; ++i) {
    for (std::int64_t j = 0; j < r; ++j) to[i * apart + j] = from[j * k + i];
    for (std::int64_t j = r; j < apart; ++j) to[i * apart + j] = 0;
  }
}

}  // namespace

void CpuBackend::narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                                float factor, const Matrix& narrow) {
  const Matrix w = weight.values();
  const std::int64_t r = narrow.cols, k = x.cols, columns = padded(r);
  require(w.dtype == DType::f32 && narrow.dtype == DType::f32 && narrow.rows == x.rows && weight.size() == r * k &&
              (transposed ? w.cols : w.rows) == r,
          "narrow_product: x, weight and narrow fit each other, and the narrow side is f32");
  const Buffer packed = workspace(static_cast<std::size_t>(k * columns) * sizeof(float));
  float* b = static_cast<float*>(packed.data());
  parallel_ranges(threads_, k, row_grain(8 * columns), 16, [&](std::int64_t begin, std::int64_t end) {
    if (transposed) return pad_rows(w.f32() + begin * w.cols, w.cols, end - begin, r, b + begin * columns);
    turn_over(w.f32(), r, k, begin, end, b);
  });
  const ThreadScratch scratch(*this, kRowsAtOnce * (padded(k) + columns));
  const auto multiply = narrow_kernels_for(isa_).multiply;
  const std::int64_t blocks = (x.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_items(threads_, blocks, [&](std::int64_t block, int thread) {
    const std::int64_t begin = block * kRowsAtOnce, count = std::min(kRowsAtOnce, x.rows - begin);
    float* sums = scratch.of(thread);
    const WideRows wide = wide_rows(isa_, x, dropout, begin, count, sums + kRowsAtOnce * columns);
    multiply({wide.data, wide.apart, 1, b, columns, sums, columns, count, columns, k, false});
    for (std::int64_t row = 0; row < count; ++row) {
      float* out = narrow.row_range(begin + row, 1).f32();
      for (std::int64_t j = 0; j < r; ++j) out[j] = sums[row * columns + j] * factor;
    }
  });
}

bool CpuBackend::narrow_input_gradient(const Matrix& narrow, const Weight& weight, const Dropout& dropout,
                                       const Matrix& d_x) {
  const Matrix w = weight.values();
  const std::int64_t r = narrow.cols, k = d_x.cols, columns = padded(k);
  require(w.dtype == DType::f32 && narrow.dtype == DType::f32 && narrow.rows == d_x.rows && w.rows == r && w.cols == k,
          "narrow_input_gradient: narrow, weight and d_x fit each other, and the narrow side is f32");
  const Buffer padded_weight = workspace(static_cast<std::size_t>(r * columns) * sizeof(float));
  float* b = static_cast<float*>(padded_weight.data());
  pad_rows(w.f32(), w.row_stride(), r, k, b);
  const ThreadScratch scratch(*this, kRowsAtOnce * columns);
  const auto multiply = narrow_kernels_for(isa_).multiply;
  const auto add = dropout_kernels_for(isa_).backward[index_of(d_x.dtype)];
  const std::int64_t blocks = (d_x.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_items(threads_, blocks, [&](std::int64_t block, int thread) {
    const std::int64_t begin = block * kRowsAtOnce, count = std::min(kRowsAtOnce, d_x.rows - begin);
    float* sums = scratch.of(thread);
    multiply({narrow.row_range(begin, 1).f32(), narrow.row_stride(), 1, b, columns, sums, columns, count, columns, r,
              false});
    for (std::int64_t row = 0; row < count; ++row) {
      add(sums + row * columns, dropout_row(dropout, begin + row), d_x.row_range(begin + row, 1).data, k);
    }
  });
  return true;
}

void CpuBackend::narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                                 const Matrix& gradient) {
  require_dense("narrow_gradient", {narrow, gradient});
  const std::int64_t r = narrow.cols, k = x.cols;
  require(narrow.dtype == DType::f32 && gradient.dtype == DType::f32 && narrow.rows == x.rows &&
              gradient.rows == (transposed ? k : r) && gradient.cols == (transposed ? r : k),
          "narrow_gradient: x, narrow and gradient fit each other, and the narrow side is f32");
  if (x.rows == 0) return;
  const std::int64_t block_rows =
      std::max(kRowsAtOnce, ((x.rows + kMostBlocks - 1) / kMostBlocks + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce);
  const std::int64_t blocks = (x.rows + block_rows - 1) / block_rows;
  const std::int64_t columns = padded(gradient.cols), size = gradient.rows * columns, narrow_columns = padded(r);
  const Buffer buffer = workspace(static_cast<std::size_t>(blocks * size) * sizeof(float));
  float* partials = static_cast<float*>(buffer.data());
  const ThreadScratch scratch(*this, kRowsAtOnce * (padded(k) + narrow_columns));
  const auto multiply = narrow_kernels_for(isa_).multiply;
  parallel_items(threads_, blocks, [&](std::int64_t block, int thread) {
    const std::int64_t end = std::min(x.rows, (block + 1) * block_rows);
    float* narrow_rows = scratch.of(thread);
    for (std::int64_t begin = block * block_rows; begin < end; begin += kRowsAtOnce) {
      const std::int64_t count = std::min(kRowsAtOnce, end - begin);
      const WideRows wide = wide_rows(isa_, x, dropout, begin, count, narrow_rows + kRowsAtOnce * narrow_columns);
      const bool add = begin > block * block_rows;
      pad_rows(narrow.row_range(begin, 1).f32(), r, count, r, narrow_rows);
      if (transposed) {
        multiply({wide.data, 1, wide.apart, narrow_rows, narrow_columns, partials + block * size, columns, k, columns,
                  count, add});
      } else {
        multiply({narrow_rows, 1, narrow_columns, wide.data, wide.apart, partials + block * size, columns, r, columns,
                  count, add});
      }
    }
  });
  parallel_ranges(threads_, gradient.rows, row_grain(blocks * columns), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* to = gradient.row_range(row, 1).f32();
      for (std::int64_t block = 0; block < blocks; ++block) {
        const float* from = partials + block * size + row * columns;
        for (std::int64_t i = 0; i < gradient.cols; ++i) to[i] += from[i];
      }
    }
  });
}

}  // namespace tempora
