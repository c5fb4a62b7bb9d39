// Products whose rows do not depend on each other: one fixed order of additions over K for every element, whatever the
// number of rows. cuBLASLt picks another algorithm for another shape, so it cannot promise that.
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kTile = 16;

// The weight as it is: device memory needs no other layout for this kernel.
struct CudaPackedWeight : PackedWeight {
  explicit CudaPackedWeight(const Matrix& from) : weight(from) {}
  std::size_t bytes() const override { return 0; }
  Matrix weight;
};

// out (+)= x · weightᵀ in tiles of 16 x 16; each thread adds its element's products in order of k. One block a tile,
// row tiles fastest, all along the grid's x: its y would end at 65535 tiles.
template <typename T, typename Out>
__global__ void packed_matmul_kernel(const T* x, const T* weight, Out* out, int rows, int outputs, int inputs,
                                     bool accumulate) {
  __shared__ float x_tile[kTile][kTile + 1], weight_tile[kTile][kTile + 1];
  const unsigned row_tiles = (rows + kTile - 1) / kTile;
  const int row = blockIdx.x % row_tiles * kTile + threadIdx.y;
  const int first_column = blockIdx.x / row_tiles * kTile;
  const int column = first_column + threadIdx.x, weight_row = first_column + threadIdx.y;
  float sum = 0;
  for (int k = 0; k < inputs; k += kTile) {
    const int at = k + threadIdx.x;
    const bool inside = at < inputs;
    x_tile[threadIdx.y][threadIdx.x] =
        inside && row < rows ? load(x + static_cast<std::int64_t>(row) * inputs + at) : 0.0f;
    weight_tile[threadIdx.y][threadIdx.x] =
        inside && weight_row < outputs ? load(weight + static_cast<std::int64_t>(weight_row) * inputs + at) : 0.0f;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum = fmaf(x_tile[threadIdx.y][i], weight_tile[threadIdx.x][i], sum);
    __syncthreads();
  }
  if (row >= rows || column >= outputs) return;
  Out* to = out + static_cast<std::int64_t>(row) * outputs + column;
  store(to, accumulate ? load(to) + sum : sum);
}

}  // namespace

std::unique_ptr<PackedWeight> CudaBackend::pack(const Matrix& weight) {
  return std::make_unique<CudaPackedWeight>(weight);
}

void CudaBackend::packed_matmul(const Matrix& x, const PackedWeight& packed, const Matrix& out, bool accumulate) {
  const Matrix& weight = static_cast<const CudaPackedWeight&>(packed).weight;
  if (out.size() == 0) return;
  const unsigned tiles = blocks_for(out.cols, kTile) * blocks_for(out.rows, kTile);
  with_type(x.dtype, [&]<typename T>() {
    with_type(out.dtype, [&]<typename Out>() {
      launch("packed_matmul", packed_matmul_kernel<T, Out>, tiles, dim3(kTile, kTile), stream_,
             static_cast<const T*>(x.data), static_cast<const T*>(weight.data), static_cast<Out*>(out.data),
             static_cast<int>(out.rows), static_cast<int>(out.cols), static_cast<int>(x.cols), accumulate);
    });
  });
}

}  // namespace tempora
