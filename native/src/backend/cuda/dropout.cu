#include "../../forest/random.h"
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

struct DropoutView {
  std::uint64_t key;
  std::int64_t first_row;
  std::uint32_t threshold;
  float scale;

  explicit DropoutView(const Dropout& from)
      : key(from.key), first_row(from.first_row), threshold(from.threshold()), scale(from.scale()) {}

  // The CPU's kernel drops the same elements: four of a row share a word of 16 bits each.
  __device__ float kept(float x, std::int64_t row, int column) const {
    if (threshold == 0) return x;
    const std::uint64_t row_key = combine_key(key, static_cast<std::uint64_t>(first_row + row));
    const std::uint64_t word = combine_key(row_key, static_cast<std::uint64_t>(column / 4));
    const auto bits = static_cast<std::uint32_t>(word >> (16 * (column % 4))) & 0xffffu;
    return bits >= threshold ? x * scale : 0.0f;
  }
};

template <typename T>
__global__ void dropout_kernel(const T* x, std::int64_t x_row, DropoutView dropout, float* out, std::int64_t out_row,
                               std::int64_t size, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const std::int64_t row = i / width;
  const int column = static_cast<int>(i % width);
  out[row * out_row + column] = dropout.kept(load(x + row * x_row + column), row, column);
}

template <typename T>
__global__ void dropout_backward_kernel(const float* d_out, std::int64_t d_out_row, DropoutView dropout, T* d_x,
                                        std::int64_t d_x_row, std::int64_t size, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const std::int64_t row = i / width;
  const int column = static_cast<int>(i % width);
  T* to = d_x + row * d_x_row + column;
  store(to, load(to) + dropout.kept(d_out[row * d_out_row + column], row, column));
}

__global__ void scale_kernel(float* x, float factor, std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i < size) x[i] *= factor;
}

}  // namespace

void CudaBackend::dropout(const Matrix& x, const Dropout& dropout, const Matrix& out) {
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    launch("dropout", dropout_kernel<T>, blocks_for(x.size(), kBlock), kBlock, stream_, static_cast<const T*>(x.data),
           x.row_stride(), DropoutView(dropout), out.f32(), out.row_stride(), x.size(), static_cast<int>(x.cols));
  });
}

void CudaBackend::dropout_backward(const Matrix& d_out, const Dropout& dropout, const Matrix& d_x) {
  if (d_x.size() == 0) return;
  with_type(d_x.dtype, [&]<typename T>() {
    launch("dropout_backward", dropout_backward_kernel<T>, blocks_for(d_x.size(), kBlock), kBlock, stream_, d_out.f32(),
           d_out.row_stride(), DropoutView(dropout), static_cast<T*>(d_x.data), d_x.row_stride(), d_x.size(),
           static_cast<int>(d_x.cols));
  });
}

void CudaBackend::scale(const Matrix& x, float factor) {
  require_dense("scale", {x});
  if (x.size() == 0) return;
  launch("scale", scale_kernel, blocks_for(x.size(), kBlock), kBlock, stream_, x.f32(), factor, x.size());
}

}  // namespace tempora
