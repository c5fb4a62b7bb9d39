// Column sums over many rows, for the gradients of weights that are vectors.
#pragma once

#include "device.cuh"

namespace tempora::device {

constexpr int kColumnLanes = 8;

// out[c] += Σ_row term(row, c). A block has 32 columns and 8 row lanes: lane i sums rows i, i + 8, ... in order, then
// the lanes are added in order.
template <typename Term>
__global__ void add_column_sums_kernel(std::int64_t rows, int columns, float* out, Term term) {
  __shared__ float partial[kColumnLanes][kWarp];
  const int column = blockIdx.x * kWarp + threadIdx.x;
  float sum = 0;
  if (column < columns) {
    for (std::int64_t row = threadIdx.y; row < rows; row += kColumnLanes) sum += term(row, column);
  }
  partial[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int lane = 1; lane < kColumnLanes; ++lane) sum += partial[lane][threadIdx.x];
  out[column] += sum;
}

// Nothing where out is null.
template <typename Term>
void add_column_sums(std::int64_t rows, int columns, float* out, Term term, cudaStream_t stream) {
  if (out == nullptr) return;
  launch("add_column_sums", add_column_sums_kernel<Term>, blocks_for(columns, kWarp), dim3(kWarp, kColumnLanes), stream,
         rows, columns, out, term);
}

}  // namespace tempora::device
