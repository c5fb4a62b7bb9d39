// RMSNorm over rows, and over the heads of a row (rows of head_dim elements).
#include "check.h"
#include "cuda_backend.h"
#include "rows_of_lanes.cuh"
#include "split_sums.cuh"

namespace tempora {
namespace {

using namespace device;

// A row stays in the registers of its lanes, a whole block's where a warp is too small.
template <typename X, typename W, typename Y, int lanes, int vectors, int n>
__global__ void norm_lanes_kernel(const X* x, const W* weight, float eps, Y* y, float* rstd, std::int64_t rows,
                                  int width) {
  using Row = RowOfLanes<lanes, vectors, n>;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (kBlock / lanes) + threadIdx.x / lanes;
  const bool there = row < rows;
  Row numbers;
  numbers.load(x + row * width, there ? width : 0);
  const float scale = numbers.rstd(width, eps);
  if (!there) return;
  numbers.normalise(scale, weight, width);
  numbers.store(y + row * width, width);
  if (Row::lane() == 0) rstd[row] = scale;
}

// The same of x + the sums of a product, which x becomes.
template <typename W, typename Y, int lanes, int vectors, int n>
__global__ void sum_norm_lanes_kernel(SplitView sums, float* x, const W* weight, float eps, Y* y, float* rstd,
                                      std::int64_t rows, int width) {
  using Row = RowOfLanes<lanes, vectors, n>;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (kBlock / lanes) + threadIdx.x / lanes;
  const bool there = row < rows;
  Row numbers;
  numbers.load(x + row * width, there ? width : 0);
#pragma unroll
  for (int v = 0; v < vectors; ++v) {
    if (!there || Row::column(v) >= width) continue;
    float added[n];
    sums.sum(row * width + Row::column(v), added);
#pragma unroll
    for (int i = 0; i < n; ++i) numbers.at[v][i] += added[i];
  }
  const float scale = numbers.rstd(width, eps);
  if (!there) return;
  numbers.store(x + row * width, width);
  numbers.normalise(scale, weight, width);
  numbers.store(y + row * width, width);
  if (Row::lane() == 0) rstd[row] = scale;
}

// Rows that are no whole vectors, or too wide for registers: one block a row.
template <typename X, typename W, typename Y>
__global__ void norm_kernel(const X* x, const W* weight, float eps, Y* y, float* rstd, int width) {
  const std::int64_t row = blockIdx.x;
  x += row * width;
  y += row * width;
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) squares += load(x + i) * load(x + i);
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(width) + eps);
  for (int i = threadIdx.x; i < width; i += blockDim.x) store(y + i, load(x + i) * scale * load(weight + i));
  if (threadIdx.x == 0) rstd[row] = scale;
}

// Calls in_lanes.operator()<lanes, vectors>() for rows of `width` numbers of which a thread has n at once. False where
// no lanes can have such a row.
template <int n, typename Work>
bool with_row(int width, Work in_lanes) {
  if (const int lanes = lanes_for(width / n); lanes > 0) {
    with_lanes(lanes, [&]<int found>() { in_lanes.template operator()<found, 1>(); });
    return true;
  }
  // No head is so wide that a warp is too small for it in bf16.
  if constexpr (n == kVector<float>) {
    if (const int vectors = vectors_for(width / n); vectors > 0) {
      with_vectors(vectors, [&]<int found>() { in_lanes.template operator()<kBlock, found>(); });
      return true;
    }
  }
  return false;
}

template <int n, typename X, typename W, typename Y>
void norm_rows(const X* x, const W* weight, float eps, Y* y, float* rstd, std::int64_t rows, int width,
               cudaStream_t stream) {
  const auto in_lanes = [&]<int lanes, int vectors>() {
    launch("norm", norm_lanes_kernel<X, W, Y, lanes, vectors, n>, blocks_for(rows, kBlock / lanes), kBlock, stream, x,
           weight, eps, y, rstd, rows, width);
  };
  if (fits_vectors<n>(x, width) && fits_vectors<n>(weight, width) && fits_vectors<n>(y, width) &&
      with_row<n>(width, in_lanes)) {
    return;
  }
  launch("norm", norm_kernel<X, W, Y>, static_cast<unsigned>(rows), threads_for(width), stream, x, weight, eps, y, rstd,
         width);
}

// False where the sums must be added first.
template <int n, typename T>
bool norm_sums(const SplitSums& sums, float* x, const T* weight, float eps, T* y, float* rstd, std::int64_t rows,
               int width, cudaStream_t stream) {
  if (!fits_vectors<n>(x, width) || !fits_vectors<n>(weight, width) || !fits_vectors<n>(y, width)) return false;
  return with_row<n>(width, [&]<int lanes, int vectors>() {
    launch("norm, splits", sum_norm_lanes_kernel<T, T, lanes, vectors, n>, blocks_for(rows, kBlock / lanes), kBlock,
           stream, SplitView(sums), x, weight, eps, y, rstd, rows, width);
  });
}

}  // namespace

void CudaBackend::rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) {
  require_dense("rms_norm", {x, y});
  if (x.rows == 0) return;
  with_type(y.dtype, [&]<typename T>() {
    norm_rows<kVector<float>>(x.f32(), static_cast<const T*>(weight), eps, static_cast<T*>(y.data), rstd, x.rows,
                              static_cast<int>(x.cols), stream_);
  });
}

void CudaBackend::row_product_norm(const Matrix& x, const Weight& weight, const Matrix& sum, const void* norm,
                                   float eps, const Matrix& normed, float* rstd) {
  require_dense("row_product_norm", {sum, normed});
  if (sum.size() == 0) return;
  const SplitSums sums = begin_row_product(x, weight, sum, true);
  with_type(normed.dtype, [&]<typename T>() {
    if (sums &&
        norm_sums<kVector<float>>(sums, sum.f32(), static_cast<const T*>(norm), eps, static_cast<T*>(normed.data), rstd,
                                  sum.rows, static_cast<int>(sum.cols), stream_)) {
      return;
    }
    add_splits(sums, sum, true);
    rms_norm(sum, norm, eps, normed, rstd);
  });
}

void CudaBackend::head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y,
                            float* rstd) {
  require_dense("head_norm", {x, y});
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    norm_rows<kVector<T>>(static_cast<const T*>(x.data), static_cast<const T*>(weight), eps, static_cast<T*>(y.data),
                          rstd, x.size() / head_dim, head_dim, stream_);
  });
}

}  // namespace tempora
