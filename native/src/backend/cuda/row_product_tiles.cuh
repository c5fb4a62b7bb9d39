// The row-stable product on tensor cores: x · weightᵀ, both bf16, by a pipeline of copies to shared memory.
//
// Every element is Σ over splits of (Σ over the split's inputs, 16 at a time in order): row_products.h.
#pragma once

#include "row_products.cuh"
#include "tiles.cuh"

namespace tempora::device {

constexpr int kProductInputs = 64;  // of a stage

// A block's tile: 16 · R rows of x, 64 · W outputs, of which each warp takes 16 · W.
template <int R, int W>
struct ProductTile {
  static constexpr int kRows = 16 * R, kOutputs = 16 * W * kTileWarps;
  static constexpr int kStageElements = (kRows + kOutputs) * kTileStride<kProductInputs>;
  static constexpr int kStages = ring_stages(sizeof(bf16) * kStageElements);
  static constexpr std::size_t kSharedBytes = sizeof(bf16) * kStages * kStageElements;
};

// Begins to copy rows [first, first + count) of a matrix, columns [column, column + kProductInputs); zeros behind its
// end.
template <int count>
__device__ inline void copy_inputs(bf16* to, const bf16* from, std::int64_t stride, int first, int rows, int column,
                                   int columns) {
  constexpr int kPieces = kProductInputs / 8;
#pragma unroll
  for (int i = threadIdx.x; i < count * kPieces; i += kTileThreads) {
    const int row = i / kPieces, at = i % kPieces * 8;
    const bool there = first + row < rows && column + at < columns;
    const bf16* source = from + (there ? static_cast<std::int64_t>(first + row) * stride + column + at : 0);
    copy_async(to + row * kTileStride<kProductInputs> + at, source, there);
  }
}

template <int R, int W>
struct ProductSums {
  float of[R][2 * W][4];

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int w = 0; w < 2 * W; ++w) {
#pragma unroll
        for (int i = 0; i < 4; ++i) of[r][w][i] = 0;
      }
    }
  }
  // Takes what the other holds.
  __device__ void take(ProductSums& other) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int w = 0; w < 2 * W; ++w) {
#pragma unroll
        for (int i = 0; i < 4; ++i) of[r][w][i] += other.of[r][w][i];
      }
    }
    other.clear();
  }
};

template <int R, int W>
__device__ inline void multiply_stage(ProductSums<R, W>& sums, const bf16* x, const bf16* weight) {
  const int first_output = threadIdx.x / kWarp * 16 * W;
#pragma unroll
  for (int k = 0; k < kProductInputs; k += 16) {
    std::uint32_t a[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) load_a<kProductInputs>(a[r], x, 16 * r, k);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      std::uint32_t b[4];
      load_b<kProductInputs>(b, weight, first_output + 16 * w, k);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(sums.of[r][2 * w], a[r], b[0], b[1]);
        mma(sums.of[r][2 * w + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// Calls store(row, output, sum) for a lane's sums that lie in the matrix.
template <int R, int W, typename Store>
__device__ inline void for_each_sum(const ProductSums<R, W>& sums, int rows, int outputs, int first_row,
                                    int first_output, Store store) {
  const int lane = threadIdx.x % kWarp, warp_output = first_output + static_cast<int>(threadIdx.x) / kWarp * 16 * W;
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int w = 0; w < 2 * W; ++w) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = first_row + 16 * r + lane / 4 + i / 2 * 8,
                  output = warp_output + 8 * w + 2 * (lane % 4) + i % 2;
        if (row < rows && output < outputs) store(row, output, sums.of[r][w][i]);
      }
    }
  }
}

// One block a tile of a product, or a split of it: ProductBlock.
template <int R, int W, typename Out>
__global__ void __launch_bounds__(kTileThreads) row_product_tiles_kernel(const __grid_constant__ RowProducts all) {
  using Tile = ProductTile<R, W>;
  bf16* stages = reinterpret_cast<bf16*>(launched_shared());
  const auto block = ProductBlock::of<Tile::kRows, Tile::kOutputs>(all);
  const RowProductNumbers& n = all.of[block.product];
  const auto *x = static_cast<const bf16*>(all.x), *weight = static_cast<const bf16*>(n.weight);
  const int steps = (block.end - block.begin + kProductInputs - 1) / kProductInputs;
  const int split_steps = n.split_inputs / kProductInputs;

  const auto copy_stage = [&](int step) {
    if (step < steps) {
      bf16* to = stages + step % Tile::kStages * Tile::kStageElements;
      const int column = block.begin + step * kProductInputs;
      copy_inputs<Tile::kRows>(to, x, all.x_row, block.first_row, all.rows, column, block.end);
      copy_inputs<Tile::kOutputs>(to + Tile::kRows * kTileStride<kProductInputs>, weight, all.inputs,
                                  block.first_output, n.outputs, column, block.end);
    }
    commit_copies();
  };
  for (int step = 0; step < Tile::kStages - 1; ++step) copy_stage(step);
  ProductSums<R, W> sums, total;
  sums.clear();
  total.clear();
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<Tile::kStages - 2>();
    __syncthreads();
    copy_stage(step + Tile::kStages - 1);
    const bf16* stage = stages + step % Tile::kStages * Tile::kStageElements;
    multiply_stage(sums, stage, stage + Tile::kRows * kTileStride<kProductInputs>);
    if ((step + 1) % split_steps == 0) total.take(sums);
  }
  wait_for_copies<0>();
  if (steps % split_steps != 0) total.take(sums);
  for_each_sum(total, all.rows, n.outputs, block.first_row, block.first_output, [&](int row, int output, float sum) {
    if (n.partial != nullptr) {
      n.partial[(static_cast<std::int64_t>(block.split) * all.rows + row) * n.outputs + output] = sum;
    } else {
      Out* to = static_cast<Out*>(n.out) + row * n.out_row + output;
      store(to, all.accumulate ? load(to) + sum : sum);
    }
  });
}

}  // namespace tempora::device
