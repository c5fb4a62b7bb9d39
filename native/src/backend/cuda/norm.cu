// RMSNorm over rows, and over the heads of a row (rows of head_dim elements).
#include "check.h"
#include "cuda_backend.h"
#include "rows_of_lanes.cuh"

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

template <typename X, typename W, typename Y, int n>
void norm_rows(const X* x, const W* weight, float eps, Y* y, float* rstd, std::int64_t rows, int width,
               cudaStream_t stream) {
  const auto in_lanes = [&]<int lanes, int vectors>() {
    launch("norm", norm_lanes_kernel<X, W, Y, lanes, vectors, n>, blocks_for(rows, kBlock / lanes), kBlock, stream, x,
           weight, eps, y, rstd, rows, width);
  };
  if (fits_vectors<n>(x, width) && fits_vectors<n>(weight, width) && fits_vectors<n>(y, width)) {
    if (const int lanes = lanes_for(width / n); lanes > 0) {
      return with_lanes(lanes, [&]<int found>() { in_lanes.template operator()<found, 1>(); });
    }
    // No head is so wide that a warp is too small for it in bf16.
    if constexpr (n == kVector<float>) {
      if (const int vectors = vectors_for(width / n); vectors > 0) {
        return with_vectors(vectors, [&]<int found>() { in_lanes.template operator()<kBlock, found>(); });
      }
    }
  }
  launch("norm", norm_kernel<X, W, Y>, static_cast<unsigned>(rows), threads_for(width), stream, x, weight, eps, y, rstd,
         width);
}

}  // namespace

void CudaBackend::rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) {
  require_dense("rms_norm", {x, y});
  if (x.rows == 0) return;
  with_type(y.dtype, [&]<typename T>() {
    norm_rows<float, T, T, kVector<float>>(x.f32(), static_cast<const T*>(weight), eps, static_cast<T*>(y.data), rstd,
                                           x.rows, static_cast<int>(x.cols), stream_);
  });
}

void CudaBackend::head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y,
                            float* rstd) {
  require_dense("head_norm", {x, y});
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    norm_rows<T, T, T, kVector<T>>(static_cast<const T*>(x.data), static_cast<const T*>(weight), eps,
                                   static_cast<T*>(y.data), rstd, x.size() / head_dim, head_dim, stream_);
  });
}

}  // namespace tempora
