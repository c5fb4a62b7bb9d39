// The products of adapters that read their wide side once, in bf16, by a pipeline of copies to shared memory: with a
// narrow f32 weight (narrow_product), and with a narrow f32 matrix over all rows (narrow_gradient).
//
// Sums have a fixed order: over steps of 16 within a split of the inputs or rows, then over splits. A product's splits
// follow from its weight alone, so that it is row-stable.
#pragma once

#include "dropout.cuh"
#include "narrow_parts.cuh"
#include "tiles.cuh"

namespace tempora::device {

constexpr std::int64_t kLargestNarrow = 64;  // rank
constexpr int kNarrowRows = 128;             // of x, in a block of a product
constexpr int kNarrowRowTiles = 4;           // of 16, in a warp
constexpr int kNarrowInputs = 64;            // of a stage of a product
constexpr int kGradientRows = 64;            // of a stage of a gradient
constexpr int kGradientColumns = 128;        // of a block of a gradient

struct NarrowNumbers {
  std::int64_t x_row, narrow_row;  // elements from a row to the next
  int rows, cols, rank;            // x [rows, cols]
  int split, splits;               // inputs of a product's, rows of a gradient's
};

// A tile of f32 whose rows are as wide as the padded rank, or as a stage where `flat`. Padded so that the lanes of a
// fragment read different banks.
template <int rank>
constexpr int kTallStride = rank + 4;
constexpr int kFlatStride = kNarrowInputs + 8;

// Begins to copy `rows` x `cols` numbers from (row, column) on, zeros behind the matrix's end.
template <int rows, int cols, typename T>
__device__ inline void copy_part(T* to, int to_stride, const T* from, std::int64_t stride, int row, int end_row,
                                 int column, int end_column) {
  constexpr int kPiece = 16 / sizeof(T), kPieces = cols / kPiece;
  for (int i = threadIdx.x; i < rows * kPieces; i += kTileThreads) {
    const int r = i / kPieces, c = i % kPieces * kPiece;
    const bool there = row + r < end_row && column + c < end_column;
    copy_async(to + r * to_stride + c, from + (there ? (row + r) * stride + column + c : 0), there);
  }
}

// Zeros where x is dropped; what is kept is not scaled yet. Between barriers.
template <int rows, int cols>
__device__ inline void drop(bf16* tile, const DropoutView& dropout, int row, int column) {
  for (int i = threadIdx.x; i < rows * cols / 4; i += kTileThreads) {
    const int r = i / (cols / 4), c = i % (cols / 4) * 4;
    const std::uint64_t word = dropout.word(row + r, column + c);
    for (int j = 0; j < 4; ++j) {
      if (!dropout.keeps(word, j)) store(tile + r * kTileStride<cols> + c + j, 0.0f);
    }
  }
}

template <int rank>
struct NarrowProductTile {
  static constexpr std::size_t kX = tile_bytes<kNarrowInputs>(kNarrowRows);
  static constexpr std::size_t kFlat = sizeof(float) * rank * kFlatStride,
                               kTall = sizeof(float) * kNarrowInputs * kTallStride<rank>;
  static constexpr std::size_t kStage = kX + (kFlat > kTall ? kFlat : kTall);
  static constexpr int kStages = ring_stages(kStage);
  static constexpr std::size_t kSharedBytes = kStages * kStage;
  static_assert(kSharedBytes <= kBlockShared);
};

// B's fragment of a weight's tile: inputs [k, k + 16), outputs [n, n + 8).
template <int rank, bool transposed>
__device__ inline NarrowB weight_fragment(const float* tile, int k, int n) {
  const int lane = threadIdx.x % kWarp, output = n + lane / 4, input = k + lane % 4 * 2;
  NarrowB b;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = input + 8 * half;
    if constexpr (transposed) {
      b.set(half, tile[at * kTallStride<rank> + output], tile[(at + 1) * kTallStride<rank> + output]);
    } else {
      const float2 pair = *reinterpret_cast<const float2*>(tile + output * kFlatStride + at);
      b.set(half, pair.x, pair.y);
    }
  }
  return b;
}

// Of a block of 128 rows: warps 2 and 3, which have the same rows as 0 and 1 and other inputs, hand their sums over.
template <int rank>
__device__ inline void store_narrow(const NarrowNumbers& n, const float (&sums)[kNarrowRowTiles][rank / 8][4],
                                    char* memory, float* partial, int first_row) {
  constexpr int kOutputs = rank / 8;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warp_row = warp % 2 * 64;
  auto* others = reinterpret_cast<float4*>(memory) + warp % 2 * kWarp + lane;
#pragma unroll
  for (int i = 0; i < kNarrowRowTiles * kOutputs; ++i) {
    const auto& sum = sums[i / kOutputs][i % kOutputs];
    if (warp >= 2) others[i * 2 * kWarp] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  }
  __syncthreads();
  if (warp >= 2) return;
  float* to = partial + static_cast<std::int64_t>(blockIdx.y) * n.rows * n.rank;
#pragma unroll
  for (int i = 0; i < kNarrowRowTiles * kOutputs; ++i) {
    const auto& sum = sums[i / kOutputs][i % kOutputs];
    const float4 other = others[i * 2 * kWarp];
    const float added[4] = {sum[0] + other.x, sum[1] + other.y, sum[2] + other.z, sum[3] + other.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = first_row + warp_row + i / kOutputs * 16 + lane / 4 + j / 2 * 8;
      const int output = i % kOutputs * 8 + lane % 4 * 2 + j % 2;
      if (row < n.rows && output < n.rank) to[static_cast<std::int64_t>(row) * n.rank + output] = added[j];
    }
  }
}

// partial f32 [splits, rows, rank] = dropout(x) · weightᵀ [rank, cols], or where `transposed` · weight [cols, rank],
// but for dropout's scale. Grid: (tiles of rows, splits). Warps 0 and 1 have 64 rows each and take every other 16
// inputs, 2 and 3 have the same rows and the other inputs.
template <int rank, bool transposed, bool dropped>
__global__ void __launch_bounds__(kTileThreads)
    narrow_product_kernel(NarrowNumbers n, const bf16* x, const float* weight, DropoutView dropout, float* partial) {
  using Tile = NarrowProductTile<rank>;
  constexpr int kOutputs = rank / 8;
  char* memory = launched_shared();
  const int first_row = static_cast<int>(blockIdx.x) * kNarrowRows;
  const int begin = static_cast<int>(blockIdx.y) * n.split, end = min(n.cols, begin + n.split);
  const int steps = (end - begin + kNarrowInputs - 1) / kNarrowInputs;
  const int warp = threadIdx.x / kWarp, warp_row = warp % 2 * 64;

  const auto copy_stage = [&](int step) {
    if (step < steps) {
      char* to = memory + step % Tile::kStages * Tile::kStage;
      const int k = begin + step * kNarrowInputs;
      auto* numbers = reinterpret_cast<float*>(to + Tile::kX);
      copy_part<kNarrowRows, kNarrowInputs>(reinterpret_cast<bf16*>(to), kTileStride<kNarrowInputs>, x, n.x_row,
                                            first_row, n.rows, k, end);
      if constexpr (transposed) {
        copy_part<kNarrowInputs, rank>(numbers, kTallStride<rank>, weight, n.rank, k, end, 0, n.rank);
      } else {
        copy_part<rank, kNarrowInputs>(numbers, kFlatStride, weight, n.cols, 0, n.rank, k, end);
      }
    }
    commit_copies();
  };
  for (int step = 0; step < Tile::kStages - 1; ++step) copy_stage(step);
  float sums[kNarrowRowTiles][kOutputs][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<Tile::kStages - 2>();
    __syncthreads();
    copy_stage(step + Tile::kStages - 1);
    char* stage = memory + step % Tile::kStages * Tile::kStage;
    auto* tile = reinterpret_cast<bf16*>(stage);
    const auto* numbers = reinterpret_cast<const float*>(stage + Tile::kX);
    if constexpr (dropped) {
      drop<kNarrowRows, kNarrowInputs>(tile, dropout, first_row, begin + step * kNarrowInputs);
      __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = half * 32 + warp / 2 * 16;
      std::uint32_t a[kNarrowRowTiles][4];
#pragma unroll
      for (int r = 0; r < kNarrowRowTiles; ++r) load_a<kNarrowInputs>(a[r], tile, warp_row + 16 * r, k);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        const NarrowB b = weight_fragment<rank, transposed>(numbers, k, 8 * o);
#pragma unroll
        for (int r = 0; r < kNarrowRowTiles; ++r) multiply(sums[r][o], a[r], b);
      }
    }
  }
  wait_for_copies<0>();
  __syncthreads();
  store_narrow<rank>(n, sums, memory, partial, first_row);
}

// narrow [rows, rank] = factor · Σ of the splits.
__global__ void __launch_bounds__(kBlock)
    add_product_splits_kernel(NarrowNumbers n, const float* partial, float factor, float* narrow) {
  const std::int64_t size = static_cast<std::int64_t>(n.rows) * n.rank;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (at >= size) return;
  float sum = 0;
  for (int split = 0; split < n.splits; ++split) sum += partial[split * size + at];
  narrow[at / n.rank * n.narrow_row + at % n.rank] = factor * sum;
}

template <int rank>
struct NarrowGradientTile {
  static constexpr std::size_t kX = tile_bytes<kGradientColumns>(kGradientRows);
  static constexpr std::size_t kStage = kX + sizeof(float) * kGradientRows * kTallStride<rank>;
  static constexpr int kStages = ring_stages(kStage);
  static constexpr std::size_t kSharedBytes = kStages * kStage;
  static_assert(kSharedBytes <= kBlockShared);
};

// A's fragment of the transposed narrow tile: ranks [i, i + 16), rows [t, t + 16).
template <int rank>
__device__ inline NarrowA narrow_fragment(const float* tile, int i, int t) {
  const int lane = threadIdx.x % kWarp;
  NarrowA a;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    const float* at = tile + (t + lane % 4 * 2 + word / 2 * 8) * kTallStride<rank> + i + lane / 4 + word % 2 * 8;
    a.set(word, at[0], at[kTallStride<rank>]);
  }
  return a;
}

// partial f32 [splits, rank, cols] = narrowᵀ · dropout(x), or where `transposed` [splits, cols, rank], but for
// dropout's scale. Grid: (tiles of columns, splits of the rows). Each warp has 32 columns.
template <int rank, bool transposed, bool dropped>
__global__ void __launch_bounds__(kTileThreads)
    narrow_gradient_kernel(NarrowNumbers n, const bf16* x, const float* narrow, DropoutView dropout, float* partial) {
  using Tile = NarrowGradientTile<rank>;
  constexpr int kRankTiles = rank / 16, kColumnTiles = 4;
  char* memory = launched_shared();
  const int first_column = static_cast<int>(blockIdx.x) * kGradientColumns;
  const int begin = static_cast<int>(blockIdx.y) * n.split, end = min(n.rows, begin + n.split);
  const int steps = (end - begin + kGradientRows - 1) / kGradientRows;
  const int lane = threadIdx.x % kWarp, warp_column = threadIdx.x / kWarp * 32;

  const auto copy_stage = [&](int step) {
    if (step < steps) {
      char* to = memory + step % Tile::kStages * Tile::kStage;
      const int row = begin + step * kGradientRows;
      copy_part<kGradientRows, kGradientColumns>(reinterpret_cast<bf16*>(to), kTileStride<kGradientColumns>, x, n.x_row,
                                                 row, end, first_column, n.cols);
      copy_part<kGradientRows, rank>(reinterpret_cast<float*>(to + Tile::kX), kTallStride<rank>, narrow, n.narrow_row,
                                     row, end, 0, n.rank);
    }
    commit_copies();
  };
  for (int step = 0; step < Tile::kStages - 1; ++step) copy_stage(step);
  float sums[kRankTiles][kColumnTiles][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<Tile::kStages - 2>();
    __syncthreads();
    copy_stage(step + Tile::kStages - 1);
    char* stage = memory + step % Tile::kStages * Tile::kStage;
    auto* tile = reinterpret_cast<bf16*>(stage);
    const auto* numbers = reinterpret_cast<const float*>(stage + Tile::kX);
    if constexpr (dropped) {
      drop<kGradientRows, kGradientColumns>(tile, dropout, begin + step * kGradientRows, first_column);
      __syncthreads();
    }
#pragma unroll(rank == 16 ? 4 : 1)
    for (int t = 0; t < kGradientRows; t += 16) {
      std::uint32_t b[kColumnTiles / 2][4];
#pragma unroll
      for (int c = 0; c < kColumnTiles / 2; ++c) {
        load_b_transposed<kGradientColumns>(b[c], tile, t, warp_column + 16 * c);
      }
#pragma unroll
      for (int i = 0; i < kRankTiles; ++i) {
        const NarrowA a = narrow_fragment<rank>(numbers, 16 * i, t);
#pragma unroll
        for (int c = 0; c < kColumnTiles; ++c) multiply(sums[i][c], a, b[c / 2][c % 2 * 2], b[c / 2][c % 2 * 2 + 1]);
      }
    }
  }
  wait_for_copies<0>();
  float* to = partial + static_cast<std::int64_t>(blockIdx.y) * n.rank * n.cols;
#pragma unroll
  for (int at = 0; at < kRankTiles * kColumnTiles * 4; ++at) {
    const int i = at / 4 / kColumnTiles, c = at / 4 % kColumnTiles, j = at % 4;
    const int row = 16 * i + lane / 4 + j / 2 * 8, column = first_column + warp_column + 8 * c + lane % 4 * 2 + j % 2;
    if (row >= n.rank || column >= n.cols) continue;
    to[transposed ? static_cast<std::int64_t>(column) * n.rank + row
                  : static_cast<std::int64_t>(row) * n.cols + column] = sums[i][c][j];
  }
}

// gradient += factor · Σ of the splits, element by element.
__global__ void __launch_bounds__(kBlock)
    add_gradient_splits_kernel(NarrowNumbers n, const float* partial, float factor, float* gradient) {
  const std::int64_t size = static_cast<std::int64_t>(n.rank) * n.cols;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (at >= size) return;
  float sum = 0;
  for (int split = 0; split < n.splits; ++split) sum += partial[split * size + at];
  gradient[at] += factor * sum;
}

}  // namespace tempora::device
