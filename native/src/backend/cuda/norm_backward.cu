// The gradients of RMSNorm over rows, and over the heads of a row.
#include <algorithm>

#include "check.h"
#include "columns.cuh"
#include "cuda_backend.h"
#include "rows_of_lanes.cuh"

namespace tempora {
namespace {

using namespace device;

// Blocks: a few for each of 132 multiprocessors. Each keeps what its rows add to the weight's gradient in registers.
constexpr std::int64_t kNormParts = 396;

template <typename X, typename W, typename D, typename Out>
struct NormBackward {
  const X* x;
  const W* weight;
  const float* rstd;
  const D* d_y;
  Out* d_x;  // may be d_y
  std::int64_t rows;
  int width;
  // Beside d_x where they are not null: the norm's result once more, and the new d_x as products take it.
  W *y = nullptr, *rounded = nullptr;
  float* parts = nullptr;  // f32 [parts, width], or null
  std::int64_t rows_of_part = 0;
};

// A block's part of the weight's gradient, from what its threads have.
template <int lanes, int vectors, int n>
__device__ void write_part(float* part, const float (&sums)[vectors][n], int width) {
  using Row = RowOfLanes<lanes, vectors, n>;
  constexpr int kRows = kBlock / lanes;
  if constexpr (kRows == 1) {
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      if (Row::column(v) < width) store_vector(part + Row::column(v), sums[v]);
    }
  } else {
    // The rows that were taken at a time, in order.
    __shared__ float of_rows[kBlock * n];
#pragma unroll
    for (int i = 0; i < n; ++i) of_rows[threadIdx.x * n + i] = sums[0][i];
    __syncthreads();
    for (int column = threadIdx.x; column < width; column += kBlock) {
      float sum = 0;
      for (int i = 0; i < kRows; ++i) sum += of_rows[i * lanes * n + column];
      part[column] = sum;
    }
  }
}

// y = x · rstd · weight, as norm.cu has it, and
// d_x (+)= rstd · (g − x · rstd² · mean(g · x)) with g = d_y · weight, and parts[block] = Σ d_y · x · rstd. A block's
// rows are taken kBlock / lanes at a time.
template <typename X, typename W, typename D, typename Out, bool accumulate, int lanes, int vectors, int n>
__global__ void norm_backward_lanes_kernel(NormBackward<X, W, D, Out> norm) {
  using Row = RowOfLanes<lanes, vectors, n>;
  constexpr int kRows = kBlock / lanes;
  const int width = norm.width, own = static_cast<int>(threadIdx.x) / lanes;
  const std::int64_t begin = blockIdx.x * norm.rows_of_part, end = min(norm.rows, begin + norm.rows_of_part);
  float sums[vectors][n] = {};
  for (std::int64_t first = begin; first < end; first += kRows) {
    const std::int64_t row = first + own;
    const bool there = row < end;
    const int here = there ? width : 0;
    Row x, d_y;
    x.load(norm.x + row * width, here);
    d_y.load(norm.d_y + row * width, here);
    const float rstd = there ? norm.rstd[row] : 0.0f;
    float dot = 0;
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      float weights[n] = {};
      if (Row::column(v) < here) load_vector(norm.weight + Row::column(v), weights);
      if constexpr (accumulate) {
        if (norm.y != nullptr && Row::column(v) < here) {
          float result[n];
#pragma unroll
          for (int i = 0; i < n; ++i) result[i] = x.at[v][i] * rstd * weights[i];
          store_vector(norm.y + row * width + Row::column(v), result);
        }
      }
#pragma unroll
      for (int i = 0; i < n; ++i) {
        sums[v][i] += d_y.at[v][i] * x.at[v][i] * rstd;
        d_y.at[v][i] *= weights[i];
        dot += d_y.at[v][i] * x.at[v][i];
      }
    }
    const float pull = Row::sum(dot) * rstd * rstd / static_cast<float>(width);
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
      if (Row::column(v) >= here) continue;
      Out* to = norm.d_x + row * width + Row::column(v);
      float before[n] = {};
      if constexpr (accumulate) load_vector(to, before);
#pragma unroll
      for (int i = 0; i < n; ++i) before[i] += rstd * (d_y.at[v][i] - x.at[v][i] * pull);
      store_vector(to, before);
      if constexpr (accumulate) {
        if (norm.rounded != nullptr) store_vector(norm.rounded + row * width + Row::column(v), before);
      }
    }
  }
  if (norm.parts == nullptr) return;
  write_part<lanes, vectors, n>(norm.parts + static_cast<std::int64_t>(blockIdx.x) * width, sums, width);
}

// Rows that are no whole vectors, or too wide for registers: one block a row.
template <typename X, typename W, typename D, typename Out, bool accumulate>
__global__ void norm_backward_kernel(NormBackward<X, W, D, Out> norm) {
  const std::int64_t row = blockIdx.x;
  const X* x = norm.x + row * norm.width;
  const D* d_y = norm.d_y + row * norm.width;
  Out* d_x = norm.d_x + row * norm.width;
  const float scale = norm.rstd[row];
  float dot = 0;
  for (int i = threadIdx.x; i < norm.width; i += blockDim.x) dot += load(d_y + i) * load(norm.weight + i) * load(x + i);
  const float pull = block_sum(dot) * scale * scale / static_cast<float>(norm.width);
  for (int i = threadIdx.x; i < norm.width; i += blockDim.x) {
    const float weight = load(norm.weight + i), gradient = scale * (load(d_y + i) * weight - load(x + i) * pull);
    const float sum = accumulate ? load(d_x + i) + gradient : gradient;
    if (norm.y != nullptr) store(norm.y + row * norm.width + i, load(x + i) * scale * weight);
    if (norm.rounded != nullptr) store(norm.rounded + row * norm.width + i, sum);
    store(d_x + i, sum);
  }
}

// What a row adds to the gradient of the weight.
template <typename X, typename D>
struct WeightTerm {
  static constexpr int kColumns = 1;
  const X* x;
  const D* d_y;
  const float* rstd;
  int width;

  __device__ void add(std::int64_t row, int column, float (&to)[1]) const {
    const std::int64_t i = row * width + column;
    to[0] += load(d_y + i) * load(x + i) * rstd[row];
  }
};

template <int n, bool accumulate, typename X, typename W, typename D, typename Out>
void norm_rows_backward(Backend& backend, NormBackward<X, W, D, Out> norm, float* d_weight, cudaStream_t stream) {
  const auto in_lanes = [&]<int lanes, int vectors>() {
    constexpr int kRows = kBlock / lanes;
    norm.rows_of_part = blocks_for(blocks_for(norm.rows, kRows), kNormParts) * std::int64_t{kRows};
    const unsigned count = blocks_for(norm.rows, static_cast<int>(norm.rows_of_part));
    const std::size_t bytes = static_cast<std::size_t>(count) * static_cast<std::size_t>(norm.width) * sizeof(float);
    const Buffer parts = backend.allocate(d_weight == nullptr ? 1 : bytes, MemoryUse::workspace);
    norm.parts = d_weight == nullptr ? nullptr : static_cast<float*>(parts.data());
    launch("norm_backward", norm_backward_lanes_kernel<X, W, D, Out, accumulate, lanes, vectors, n>, count, kBlock,
           stream, norm);
    if (d_weight != nullptr) add_parts(norm.parts, count, norm.width, d_weight, stream);
  };
  const int width = norm.width;
  if (fits_vectors<n>(norm.x, width) && fits_vectors<n>(norm.weight, width) && fits_vectors<n>(norm.d_y, width) &&
      fits_vectors<n>(norm.d_x, width) && fits_vectors<n>(norm.y, width) && fits_vectors<n>(norm.rounded, width)) {
    if (const int lanes = lanes_for(width / n); lanes > 0) {
      return with_lanes(lanes, [&]<int found>() { in_lanes.template operator()<found, 1>(); });
    }
    // No head is so wide that a warp is too small for it in bf16.
    if constexpr (n == kVector<float>) {
      if (const int vectors = vectors_for(width / n); vectors > 0) {
        return with_vectors(vectors, [&]<int found>() { in_lanes.template operator()<kBlock, found>(); });
      }
    }
  }
  // First, because d_x may be d_y.
  if (d_weight != nullptr) {
    add_column_sums(backend, norm.rows, width, d_weight, WeightTerm<X, D>{norm.x, norm.d_y, norm.rstd, width}, stream);
  }
  launch("norm_backward", norm_backward_kernel<X, W, D, Out, accumulate>, static_cast<unsigned>(norm.rows),
         threads_for(width), stream, norm);
}

}  // namespace

void CudaBackend::rms_norm_backward(const Matrix& x, const void* weight, DType weight_dtype, const float* rstd,
                                    const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("rms_norm_backward", {x, d_y, d_x});
  if (x.rows == 0) return;
  with_type(weight_dtype, [&]<typename T>() {
    const NormBackward<float, T, float, float> norm{x.f32(), static_cast<const T*>(weight), rstd, d_y.f32(), d_x.f32(),
                                                    x.rows,  static_cast<int>(x.cols)};
    norm_rows_backward<kVector<float>, true>(*this, norm, d_weight, stream_);
  });
}

void CudaBackend::recomputed_norm_backward(const RecomputedNorm& norm) {
  require_dense("recomputed_norm_backward", {norm.x, norm.d_y, norm.y, norm.d_x, norm.rounded});
  if (norm.x.rows == 0) return;
  with_type(norm.y.dtype, [&]<typename T>() {
    const NormBackward<float, T, float, float> all{.x = norm.x.f32(),
                                                   .weight = static_cast<const T*>(norm.weight),
                                                   .rstd = norm.rstd,
                                                   .d_y = norm.d_y.f32(),
                                                   .d_x = norm.d_x.f32(),
                                                   .rows = norm.x.rows,
                                                   .width = static_cast<int>(norm.x.cols),
                                                   .y = static_cast<T*>(norm.y.data),
                                                   .rounded = static_cast<T*>(norm.rounded.data)};
    norm_rows_backward<kVector<float>, true>(*this, all, norm.d_weight, stream_);
  });
}

void CudaBackend::head_norm_backward(const Matrix& x, int head_dim, const void* weight, const float* rstd,
                                     const Matrix& d_y, const Matrix& d_x, float* d_weight) {
  require_dense("head_norm_backward", {x, d_y, d_x});
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename T>() {
    const NormBackward<T, T, T, T> norm{
        static_cast<const T*>(x.data), static_cast<const T*>(weight), rstd,    static_cast<const T*>(d_y.data),
        static_cast<T*>(d_x.data),     x.size() / head_dim,           head_dim};
    norm_rows_backward<kVector<T>, false>(*this, norm, d_weight, stream_);
  });
}

}  // namespace tempora
