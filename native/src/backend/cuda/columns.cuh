// Column sums over many rows, for the gradients of weights that are vectors.
#pragma once

#include <algorithm>

#include "device.cuh"

namespace tempora::device {

constexpr int kColumnLanes = 8;
constexpr std::int64_t kColumnParts = 256;      // of the rows, at most
constexpr std::int64_t kRowsOfColumnPart = 64;  // at least

// out[part, c] (+)= Σ_row term(row, c) over the rows of a part. A block has 32 columns and 8 row lanes: lane i sums
// rows i, i + 8, ... of the part in order, then the lanes are added in order.
template <typename Term>
__global__ void column_sums_kernel(std::int64_t rows, std::int64_t rows_of_part, int columns, float* out,
                                   bool accumulate, Term term) {
  __shared__ float partial[kColumnLanes][kWarp];
  const int column = blockIdx.x * kWarp + threadIdx.x;
  const std::int64_t begin = blockIdx.y * rows_of_part, end = min(rows, begin + rows_of_part);
  float sum = 0;
  if (column < columns) {
    for (std::int64_t row = begin + threadIdx.y; row < end; row += kColumnLanes) sum += term(row, column);
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int lane = 1; lane < kColumnLanes; ++lane) sum += partial[lane][threadIdx.x];
  float* to = out + static_cast<std::int64_t>(blockIdx.y) * columns + column;
  *to = accumulate ? *to + sum : sum;
}

// What a part of the rows sums to.
struct PartTerm {
  const float* sums;
  int columns;
  __device__ float operator()(std::int64_t part, int column) const { return sums[part * columns + column]; }
};

inline std::int64_t column_parts(std::int64_t rows) {
  return std::min(kColumnParts, (rows + kRowsOfColumnPart - 1) / kRowsOfColumnPart);
}

inline std::size_t column_scratch_bytes(std::int64_t rows, int columns) {
  return static_cast<std::size_t>(column_parts(rows) * columns) * sizeof(float);
}

// out[c] += Σ_row term(row, c), by parts of the rows that their number alone decides, so that a few columns still keep
// the device busy. `parts` is scratch of column_scratch_bytes.
template <typename Term>
void add_column_sums(std::int64_t rows, int columns, float* out, float* parts, Term term, cudaStream_t stream) {
  const std::int64_t count = column_parts(rows), rows_of_part = (rows + count - 1) / count;
  const dim3 threads(kWarp, kColumnLanes);
  launch("column_sums", column_sums_kernel<Term>, dim3(blocks_for(columns, kWarp), static_cast<unsigned>(count)),
         threads, stream, rows, rows_of_part, columns, parts, false, term);
  launch("column_sums", column_sums_kernel<PartTerm>, blocks_for(columns, kWarp), threads, stream, count, count,
         columns, out, true, PartTerm{parts, columns});
}

}  // namespace tempora::device
