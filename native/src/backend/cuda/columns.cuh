// Column sums over many rows, for the gradients of weights that are vectors.
#pragma once

#include <algorithm>

#include "vectors.cuh"

namespace tempora::device {

constexpr std::int64_t kColumnBlocks = 1056;    // wanted: eight for each of 132 multiprocessors
constexpr std::int64_t kRowsOfColumnPart = 32;  // at least

// out[part, c] (+)= Σ_row term(row, c) over the rows of a part. A block has `lanes` row lanes of 32 times kColumns
// columns: lane i sums rows i, i + lanes, ... of the part in order, then the lanes are added in order.
template <typename Term, int lanes>
__global__ void column_sums_kernel(std::int64_t rows, std::int64_t rows_of_part, int columns, float* out,
                                   bool accumulate, Term term) {
  constexpr int n = Term::kColumns;
  __shared__ float partial[lanes][kWarp * n];
  const int first = blockIdx.x * kWarp * n, column = first + static_cast<int>(threadIdx.x) * n;
  const std::int64_t begin = blockIdx.y * rows_of_part, end = min(rows, begin + rows_of_part);
  float sums[n] = {};
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t row = begin + threadIdx.y; row < end; row += lanes) term.add(row, column, sums);
  }
#pragma unroll
  for (int i = 0; i < n; ++i) partial[threadIdx.y][threadIdx.x * n + i] = sums[i];
  __syncthreads();
  for (int i = threadIdx.y * kWarp + threadIdx.x; i < kWarp * n; i += lanes * kWarp) {
    if (first + i >= columns) continue;
    float sum = partial[0][i];
    for (int lane = 1; lane < lanes; ++lane) sum += partial[lane][i];
    float* to = out + static_cast<std::int64_t>(blockIdx.y) * columns + first + i;
    *to = accumulate ? *to + sum : sum;
  }
}

// What a part of the rows sums to.
struct PartTerm {
  static constexpr int kColumns = 1;
  const float* sums;
  int columns;
  __device__ void add(std::int64_t part, int column, float (&to)[1]) const { to[0] += sums[part * columns + column]; }
};

// out[c] += Σ_part parts[part, c]
inline void add_parts(const float* parts, std::int64_t count, int columns, float* out, cudaStream_t stream) {
  constexpr int lanes = 32;
  launch("column_sums", column_sums_kernel<PartTerm, lanes>, blocks_for(columns, kWarp), dim3(kWarp, lanes), stream,
         count, count, columns, out, true, PartTerm{parts, columns});
}

// out[c] += Σ_row term(row, c), by parts of the rows that the shape alone decides, so that a few columns still keep
// the device busy.
template <typename Term>
void add_column_sums(Backend& backend, std::int64_t rows, int columns, float* out, Term term, cudaStream_t stream) {
  constexpr int lanes = 8;
  const std::int64_t column_blocks = blocks_for(columns, kWarp * Term::kColumns);
  const std::int64_t wanted = std::max<std::int64_t>(1, kColumnBlocks / column_blocks);
  const std::int64_t most = (rows + kRowsOfColumnPart - 1) / kRowsOfColumnPart;
  const std::int64_t rows_of_part = (rows + std::min(wanted, most) - 1) / std::min(wanted, most);
  const std::int64_t count = (rows + rows_of_part - 1) / rows_of_part;
  const Buffer parts =
      backend.allocate(static_cast<std::size_t>(count * columns) * sizeof(float), MemoryUse::workspace);
  float* sums = static_cast<float*>(parts.data());
  launch("column_sums", column_sums_kernel<Term, lanes>,
         dim3(static_cast<unsigned>(column_blocks), static_cast<unsigned>(count)), dim3(kWarp, lanes), stream, rows,
         rows_of_part, columns, sums, false, term);
  add_parts(sums, count, columns, out, stream);
}

}  // namespace tempora::device
