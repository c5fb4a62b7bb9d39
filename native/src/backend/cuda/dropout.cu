#include "check.h"
#include "cuda_backend.h"
#include "dropout.cuh"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

// One thread four numbers of a row.
template <typename T>
__global__ void dropout_kernel(const T* x, std::int64_t x_row, DropoutView dropout, float* out, std::int64_t out_row,
                               std::int64_t rows, int width) {
  const std::int64_t of_row = (width + 3) / 4;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= rows * of_row) return;
  const std::int64_t row = i / of_row;
  const int column = static_cast<int>(i % of_row) * 4;
  float numbers[4];
  load_part(x + row * x_row + column, width - column, numbers);
  dropout.keep(numbers, row, column);
  store_part(out + row * out_row + column, width - column, numbers);
}

template <typename T>
__global__ void dropout_backward_kernel(const float* d_out, std::int64_t d_out_row, DropoutView dropout, T* d_x,
                                        std::int64_t d_x_row, std::int64_t rows, int width) {
  const std::int64_t of_row = (width + 3) / 4;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= rows * of_row) return;
  const std::int64_t row = i / of_row;
  const int column = static_cast<int>(i % of_row) * 4;
  float numbers[4], sums[4];
  load_part(d_out + row * d_out_row + column, width - column, numbers);
  T* to = d_x + row * d_x_row + column;
  load_part(to, width - column, sums);
  dropout.keep(numbers, row, column);
#pragma unroll
  for (int j = 0; j < 4; ++j) sums[j] += numbers[j];
  store_part(to, width - column, sums);
}

}  // namespace

void CudaBackend::dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) {
  if (x.size() == 0) return;
  const unsigned blocks = blocks_for(x.rows * ((x.cols + 3) / 4), kBlock);
  with_type(x.dtype, [&]<typename T>() {
    launch("dropout", dropout_kernel<T>, blocks, kBlock, stream_, static_cast<const T*>(x.data), x.row_stride(),
           DropoutView(dropout), out.f32(), out.row_stride(), x.rows, static_cast<int>(x.cols));
  });
}

void CudaBackend::dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) {
  if (d_x.size() == 0) return;
  const unsigned blocks = blocks_for(d_x.rows * ((d_x.cols + 3) / 4), kBlock);
  with_type(d_x.dtype, [&]<typename T>() {
    launch("dropout_backward", dropout_backward_kernel<T>, blocks, kBlock, stream_, d_out.f32(), d_out.row_stride(),
           DropoutView(dropout), static_cast<T*>(d_x.data), d_x.row_stride(), d_x.rows, static_cast<int>(d_x.cols));
  });
}

}  // namespace tempora
