// Products whose rows do not depend on each other: one fixed order of additions over K for every element, whatever the
// number of rows. cuBLASLt picks another algorithm for another shape, so it cannot promise that.
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kTile = 16;

// out (+)= x · weightᵀ in tiles of 16 x 16; each thread adds its element's products in order of k. One block a tile,
// row tiles fastest, all along the grid's x: its y would end at 65535 tiles.
template <typename T, typename Out>
__global__ void row_product_kernel(const T* x, std::int64_t x_row, const T* weight, Out* out, std::int64_t out_row,
                                   int rows, int outputs, int inputs, bool accumulate) {
  __shared__ float x_tile[kTile][kTile + 1], weight_tile[kTile][kTile + 1];
  const unsigned row_tiles = (rows + kTile - 1) / kTile;
  const int row = blockIdx.x % row_tiles * kTile + threadIdx.y;
  const int first_column = blockIdx.x / row_tiles * kTile;
  const int column = first_column + threadIdx.x, weight_row = first_column + threadIdx.y;
  float sum = 0;
  for (int k = 0; k < inputs; k += kTile) {
    const int at = k + threadIdx.x;
    const bool inside = at < inputs;
    x_tile[threadIdx.y][threadIdx.x] = inside && row < rows ? load(x + row * x_row + at) : 0.0f;
    weight_tile[threadIdx.y][threadIdx.x] =
        inside && weight_row < outputs ? load(weight + static_cast<std::int64_t>(weight_row) * inputs + at) : 0.0f;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum = fmaf(x_tile[threadIdx.y][i], weight_tile[threadIdx.x][i], sum);
    __syncthreads();
  }
  if (row >= rows || column >= outputs) return;
  Out* to = out + row * out_row + column;
  store(to, accumulate ? load(to) + sum : sum);
}

}  // namespace

// A plain weight is read as it lies: this kernel needs no other layout.
void CudaBackend::row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  if (out.size() == 0) return;
  Buffer owner;
  const Matrix numbers = weight_numbers(weight, x.dtype, owner);
  const unsigned tiles = blocks_for(out.cols, kTile) * blocks_for(out.rows, kTile);
  with_type(x.dtype, [&]<typename T>() {
    with_type(out.dtype, [&]<typename Out>() {
      launch("row_product", row_product_kernel<T, Out>, tiles, dim3(kTile, kTile), stream_,
             static_cast<const T*>(x.data), x.row_stride(), static_cast<const T*>(numbers.data),
             static_cast<Out*>(out.data), out.row_stride(), static_cast<int>(out.rows), static_cast<int>(out.cols),
             static_cast<int>(x.cols), accumulate);
    });
  });
}

}  // namespace tempora
