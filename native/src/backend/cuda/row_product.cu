// Products whose rows do not depend on each other: one fixed order of additions over K for every element, whatever the
// number of rows. cuBLASLt picks another algorithm for another shape, so it cannot promise that.
#include <algorithm>

#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"
#include "row_product_tiles.cuh"
#include "split_sums.cuh"

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

// Blocks that a device has room for at once, roughly: enough to read a weight at full speed.
constexpr int kWantedBlocks = 264;

// Tiles from which on a block takes all splits: partial sums of many rows cost more to write than they spread.
constexpr unsigned kEnoughTiles = 96;

// By the shape of the weight alone, so that a row's sums do not depend on how many rows there are.
int split_inputs_of(int outputs, int inputs) {
  constexpr int kLeastInputs = 256;
  const int tiles = (outputs + 63) / 64;
  const int splits = std::clamp(kWantedBlocks / tiles, 1, std::max(1, inputs / kLeastInputs));
  const int stages = (inputs + kProductInputs - 1) / kProductInputs;
  return (stages + splits - 1) / splits * kProductInputs;
}

// Vectors of 16 bytes are copied.
bool fits_tiles(const Matrix& x, const Matrix& weight) {
  const auto aligned = [](const Matrix& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.row_stride() % 8 == 0;
  };
  return x.dtype == DType::bf16 && x.cols % 8 == 0 && aligned(x) && aligned(weight);
}

// f32 [splits, rows, outputs].
Buffer partial_sums(CudaBackend& backend, const RowProductNumbers& n) {
  return backend.allocate(sizeof(float) * n.splits * n.rows * n.outputs, MemoryUse::workspace);
}

// out (+)= the splits, in order. One thread n elements of a row.
template <typename Out, int n>
__global__ void __launch_bounds__(kBlock)
    add_splits_kernel(SplitView sums, int outputs, std::int64_t out_row, Out* out, bool accumulate) {
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n;
  if (at >= sums.size) return;
  float numbers[n], before[n];
  sums.sum(at, numbers);
  Out* to = out + at / outputs * out_row + at % outputs;
  if (accumulate) {
    load_vector(to, before);
#pragma unroll
    for (int i = 0; i < n; ++i) numbers[i] = before[i] + numbers[i];
  }
  store_vector(to, numbers);
}

template <int R, int W, typename Out>
Buffer launch_tiles(CudaBackend& backend, cudaStream_t stream, const RowProductNumbers& n, const Matrix& x,
                    const Matrix& weight, Out* out, bool accumulate) {
  using Tile = ProductTile<R, W>;
  const unsigned tiles = blocks_for(n.rows, Tile::kRows) * blocks_for(n.outputs, Tile::kOutputs);
  const bool apart = n.splits > 1 && tiles < kEnoughTiles;
  Buffer partial = apart ? partial_sums(backend, n) : Buffer();
  const dim3 grid(tiles, apart ? static_cast<unsigned>(n.splits) : 1);
  launch("row_product, tiles", row_product_tiles_kernel<R, W, Out>, LaunchShape{grid, kTileThreads, Tile::kSharedBytes},
         stream, n, static_cast<const bf16*>(x.data), static_cast<const bf16*>(weight.data),
         static_cast<float*>(partial.data()), out, accumulate);
  return partial;
}

Buffer launch_hopper(CudaBackend& backend, const HopperProduct& hopper, cudaStream_t stream, const RowProductNumbers& n,
                     const Matrix& x, const Matrix& weight, const Matrix& out, bool accumulate) {
  Buffer partial = hopper.apart(n) ? partial_sums(backend, n) : Buffer();
  hopper.run(n, x.data, weight.data, static_cast<float*>(partial.data()), out, accumulate, stream);
  return partial;
}

}  // namespace

void CudaBackend::row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  if (out.size() == 0) return;
  add_splits(begin_row_product(x, weight, out, accumulate), out, accumulate);
}

void CudaBackend::add_splits(const SplitSums& sums, const Matrix& out, bool accumulate) {
  if (!sums) return;
  const device::SplitView view(sums);
  with_type(out.dtype, [&]<typename Out>() {
    Out* to = static_cast<Out*>(out.data);
    const auto add = [&]<int n>() {
      launch("row_product, splits", add_splits_kernel<Out, n>, blocks_for(view.size / n, kBlock), kBlock, stream_, view,
             sums.numbers.outputs, sums.numbers.out_row, to, accumulate);
    };
    constexpr int n = kVector<float>;
    const bool whole = fits_vectors<n>(to, out.cols) && out.row_stride() % n == 0;
    return whole ? add.template operator()<n>() : add.template operator()<1>();
  });
}

// Where the sums of splits lie apart, whoever asked adds them. A plain weight is read as it lies: this kernel needs no
// other layout.
SplitSums CudaBackend::begin_row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  Buffer owner;
  const Matrix numbers = weight_numbers(weight, x.dtype, owner);
  if (fits_widening(x, numbers, out)) {
    widen(x, numbers, false, {}, out, accumulate);
    return {};
  }
  if (fits_tiles(x, numbers)) {
    const int outputs = static_cast<int>(out.cols), inputs = static_cast<int>(x.cols);
    const int split_inputs = split_inputs_of(outputs, inputs);
    const RowProductNumbers n{x.row_stride(),
                              out.row_stride(),
                              static_cast<int>(out.rows),
                              outputs,
                              inputs,
                              split_inputs,
                              (inputs + split_inputs - 1) / split_inputs};
    SplitSums sums{n, Buffer()};
    if (hopper_) {
      sums.parts = launch_hopper(*this, *hopper_, stream_, n, x, numbers, out, accumulate);
      return sums;
    }
    with_type(out.dtype, [&]<typename Out>() {
      Out* to = static_cast<Out*>(out.data);
      if (n.rows <= 16) {
        sums.parts = launch_tiles<1, 1>(*this, stream_, n, x, numbers, to, accumulate);
      } else if (n.rows <= 32) {
        sums.parts = launch_tiles<2, 1>(*this, stream_, n, x, numbers, to, accumulate);
      } else {
        sums.parts = launch_tiles<4, 2>(*this, stream_, n, x, numbers, to, accumulate);
      }
    });
    return sums;
  }
  const unsigned tiles = blocks_for(out.cols, kTile) * blocks_for(out.rows, kTile);
  with_type(x.dtype, [&]<typename T>() {
    with_type(out.dtype, [&]<typename Out>() {
      launch("row_product", row_product_kernel<T, Out>, tiles, dim3(kTile, kTile), stream_,
             static_cast<const T*>(x.data), x.row_stride(), static_cast<const T*>(numbers.data),
             static_cast<Out*>(out.data), out.row_stride(), static_cast<int>(out.rows), static_cast<int>(out.cols),
             static_cast<int>(x.cols), accumulate);
    });
  });
  return {};
}

}  // namespace tempora
