// RMSNorm over rows, and over the heads of a row (rows of head_dim elements).
#include <algorithm>

#include "check.h"
#include "columns.cuh"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

// One block a row.
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

// d_x (+)= rstd · (g − x · rstd² · mean(g · x)) with g = d_y · weight. One block a row; d_x may be d_y.
template <typename X, typename W, typename D, typename Out, bool accumulate>
__global__ void norm_backward_kernel(const X* x, const W* weight, const float* rstd, const D* d_y, Out* d_x,
                                     int width) {
  const std::int64_t row = blockIdx.x;
  x += row * width;
  d_y += row * width;
  d_x += row * width;
  const float scale = rstd[row];
  float dot = 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) dot += load(d_y + i) * load(weight + i) * load(x + i);
  const float pull = block_sum(dot) * scale * scale / static_cast<float>(width);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const float gradient = scale * (load(d_y + i) * load(weight + i) - load(x + i) * pull);
    store(d_x + i, accumulate ? load(d_x + i) + gradient : gradient);
  }
}

// What a row adds to the gradient of the weight.
template <typename X, typename D>
struct WeightTerm {
  const X* x;
  const D* d_y;
  const float* rstd;
  int width;

  __device__ float operator()(std::int64_t row, int column) const {
    const std::int64_t i = row * width + column;
    return load(d_y + i) * load(x + i) * rstd[row];
  }
};

// Threads of a block for a row of `width`: whole warps, no more than there is work for.
int threads_for(int width) { return std::min(kBlock, (width + kWarp - 1) / kWarp * kWarp); }

}  // namespace

void CudaBackend::rms_norm(const Matrix& x, const void* weight, float eps, const Matrix& y, float* rstd) {
  require_dense("rms_norm", {x, y});
  if (x.rows == 0) return;
  const int width = static_cast<int>(x.cols);
  with_type(y.dtype, [&]<typename T>() {
    launch("norm", norm_kernel<float, T, T>, static_cast<unsigned>(x.rows), threads_for(width), stream_, x.f32(),
           static_cast<const T*>(weight), eps, static_cast<T*>(y.data), rstd, width);
  });
}

void CudaBackend::rms_norm_backward(const Matrix& x, const void* weight, DType weight_dtype, const float* rstd,
                                    const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("rms_norm_backward", {x, d_y, d_x});
  if (x.rows == 0) return;
  const int width = static_cast<int>(x.cols);
  if (d_weight != nullptr) {
    const Buffer parts = allocate(column_scratch_bytes(x.rows, width), MemoryUse::workspace);
    add_column_sums(x.rows, width, d_weight, static_cast<float*>(parts.data()),
                    WeightTerm<float, float>{x.f32(), d_y.f32(), rstd, width}, stream_);
  }
  with_type(weight_dtype, [&]<typename T>() {
    launch("norm_backward", norm_backward_kernel<float, T, float, float, true>, static_cast<unsigned>(x.rows),
           threads_for(width), stream_, x.f32(), static_cast<const T*>(weight), rstd, d_y.f32(), d_x.f32(), width);
  });
}

void CudaBackend::head_norm(const Matrix& x, int head_dim, const void* weight, float eps, const Matrix& y,
                            float* rstd) {
  require_dense("head_norm", {x, y});
  const std::int64_t rows = x.size() / head_dim;
  if (rows == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    launch("norm", norm_kernel<T, T, T>, static_cast<unsigned>(rows), threads_for(head_dim), stream_,
           static_cast<const T*>(x.data), static_cast<const T*>(weight), eps, static_cast<T*>(y.data), rstd, head_dim);
  });
}

void CudaBackend::head_norm_backward(const Matrix& x, int head_dim, const void* weight, const float* rstd,
                                     const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("head_norm_backward", {x, d_y, d_x});
  const std::int64_t rows = x.size() / head_dim;
  if (rows == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    const T* input = static_cast<const T*>(x.data);
    const T* gradient = static_cast<const T*>(d_y.data);
    // First, because d_x may be d_y.
    if (d_weight != nullptr) {
      const Buffer parts = allocate(column_scratch_bytes(rows, head_dim), MemoryUse::workspace);
      add_column_sums(rows, head_dim, d_weight, static_cast<float*>(parts.data()),
                      WeightTerm<T, T>{input, gradient, rstd, head_dim}, stream_);
    }
    launch("norm_backward", norm_backward_kernel<T, T, T, T, false>, static_cast<unsigned>(rows), threads_for(head_dim),
           stream_, input, static_cast<const T*>(weight), rstd, gradient, static_cast<T*>(d_x.data), head_dim);
  });
}

}  // namespace tempora
