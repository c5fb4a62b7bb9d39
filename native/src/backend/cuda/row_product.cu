// Products whose rows do not depend on each other: one fixed order of additions over K for every element, whatever the
// number of rows. cuBLASLt picks another algorithm for another shape, so it cannot promise that.
#include <algorithm>
#include <utility>

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

struct TileProduct {
  Matrix weight, out;
};

RowProducts products_of(const Matrix& x, const std::vector<TileProduct>& wanted, bool accumulate) {
  RowProducts all{.x = x.data,
                  .x_row = x.row_stride(),
                  .rows = static_cast<int>(x.rows),
                  .inputs = static_cast<int>(x.cols),
                  .accumulate = accumulate,
                  .count = static_cast<int>(wanted.size()),
                  .of = {}};
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    RowProductNumbers& n = all.of[i];
    n.weight = wanted[i].weight.data;
    n.out = wanted[i].out.data;
    n.out_row = wanted[i].out.row_stride();
    n.outputs = static_cast<int>(wanted[i].out.cols);
    n.split_inputs = split_inputs_of(n.outputs, all.inputs);
    n.splits = (all.inputs + n.split_inputs - 1) / n.split_inputs;
  }
  return all;
}

// Calls work.operator()<R, W>() for the tile of mma.sync that so many rows want.
template <typename Work>
auto with_tile(int rows, Work work) {
  if (rows <= 16) return work.template operator()<1, 1>();
  if (rows <= 32) return work.template operator()<2, 1>();
  return work.template operator()<4, 2>();
}

void launch_tiles(RowProducts all, DType out, cudaStream_t stream) {
  with_tile(all.rows, [&]<int R, int W>() {
    using Tile = ProductTile<R, W>;
    const unsigned blocks = all.number_blocks(Tile::kRows, Tile::kOutputs);
    with_type(out, [&]<typename Out>() {
      launch("row_product, tiles", row_product_tiles_kernel<R, W, Out>,
             LaunchShape{blocks, kTileThreads, Tile::kSharedBytes}, stream, all);
    });
  });
}

// In one launch. `hopper` may be null. Outs are of one type.
std::vector<SplitSums> launch_together(CudaBackend& backend, const HopperProduct* hopper, cudaStream_t stream,
                                       const Matrix& x, const std::vector<TileProduct>& wanted, bool accumulate) {
  RowProducts all = products_of(x, wanted, accumulate);
  const bool apart = hopper != nullptr ? hopper->apart(all) : with_tile(all.rows, [&]<int R, int W>() {
    return all.tiles(ProductTile<R, W>::kRows, ProductTile<R, W>::kOutputs) < kEnoughTiles;
  });
  std::vector<SplitSums> sums;
  for (int i = 0; i < all.count; ++i) {
    RowProductNumbers& n = all.of[i];
    SplitSums& own = sums.emplace_back(SplitSums{all.rows, n.outputs, n.splits, Buffer()});
    if (!apart || n.splits == 1) continue;
    own.parts = backend.allocate(sizeof(float) * n.splits * all.rows * n.outputs, MemoryUse::workspace);
    n.partial = static_cast<float*>(own.parts.data());
  }
  if (hopper != nullptr) {
    hopper->run(all, wanted.front().out.dtype, stream);
  } else {
    launch_tiles(all, wanted.front().out.dtype, stream);
  }
  return sums;
}

}  // namespace

void CudaBackend::row_product(const Matrix& x, const Weight& weight, const Matrix& out, bool accumulate) {
  if (out.size() == 0) return;
  add_splits(begin_row_product(x, weight, out, accumulate), out, accumulate);
}

void CudaBackend::row_products(const Matrix& x, const std::vector<WeightProduct>& products) {
  if (x.rows == 0) return;
  const std::vector<SplitSums> sums = begin_row_products(x, products);
  for (std::size_t i = 0; i < products.size(); ++i) add_splits(sums[i], products[i].out, false);
}

void CudaBackend::add_splits(const SplitSums& sums, const Matrix& out, bool accumulate) {
  if (!sums) return;
  const device::SplitView view(sums);
  with_type(out.dtype, [&]<typename Out>() {
    Out* to = static_cast<Out*>(out.data);
    const auto add = [&]<int n>() {
      launch("row_product, splits", add_splits_kernel<Out, n>, blocks_for(view.size / n, kBlock), kBlock, stream_, view,
             sums.outputs, out.row_stride(), to, accumulate);
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
    return std::move(launch_together(*this, hopper_.get(), stream_, x, {{numbers, out}}, accumulate).front());
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

// A decoding step waits for each launch: weights that lie as they are multiplied share one. Others are dequantised one
// at a time.
std::vector<SplitSums> CudaBackend::begin_row_products(const Matrix& x, const std::vector<WeightProduct>& products) {
  std::vector<TileProduct> together;
  for (const WeightProduct& one : products) {
    if (!is_plain(one.weight.format) || !fits_tiles(x, one.weight.values())) break;
    if (one.out.dtype != products.front().out.dtype || together.size() == kMostProducts) break;
    together.push_back({one.weight.values(), one.out});
  }
  if (!together.empty() && together.size() == products.size()) {
    return launch_together(*this, hopper_.get(), stream_, x, together, false);
  }
  std::vector<SplitSums> sums;
  for (const WeightProduct& one : products) sums.push_back(begin_row_product(x, one.weight, one.out, false));
  return sums;
}

}  // namespace tempora
