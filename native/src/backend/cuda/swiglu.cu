#include "check.h"
#include "cuda_backend.h"
#include "split_sums.cuh"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// One thread n numbers.
template <typename T, int n>
__global__ void swiglu_kernel(const T* gate, const T* up, T* out, std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n, left = size - i;
  if (left <= 0) return;
  float gates[n], ups[n];
  load_part(gate + i, left, gates);
  load_part(up + i, left, ups);
#pragma unroll
  for (int j = 0; j < n; ++j) gates[j] = gates[j] * sigmoid(gates[j]) * ups[j];
  store_part(out + i, left, gates);
}

// gate and up from their splits' sums, rounded as they would have been stored.
template <typename T, int n>
__global__ void swiglu_sums_kernel(SplitView gate, SplitView up, T* out, std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n;
  if (i >= size) return;
  float gates[n], ups[n];
  gate.sum(i, gates);
  up.sum(i, ups);
  round_vector<T>(gates);
  round_vector<T>(ups);
#pragma unroll
  for (int j = 0; j < n; ++j) gates[j] = gates[j] * sigmoid(gates[j]) * ups[j];
  store_vector(out + i, gates);
}

template <typename T, int n>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* d_out, T* d_gate, T* d_up, T* out,
                                       std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n, left = size - i;
  if (left <= 0) return;
  float gates[n], ups[n], d_outs[n], outs[n];
  load_part(gate + i, left, gates);
  load_part(up + i, left, ups);
  load_part(d_out + i, left, d_outs);
#pragma unroll
  for (int j = 0; j < n; ++j) {
    const float g = gates[j], u = ups[j], d = d_outs[j];
    const float s = sigmoid(g);
    const float silu = g * s;
    outs[j] = silu * u;
    gates[j] = d * u * (s + silu * (1.0f - s));
    ups[j] = d * silu;
  }
  if (out != nullptr) store_part(out + i, left, outs);
  store_part(d_gate + i, left, gates);
  store_part(d_up + i, left, ups);
}

}  // namespace

void CudaBackend::swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) {
  require_dense("swiglu", {gate, up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu", swiglu_kernel<T, kVector<T>>, blocks_for(gate.size(), kBlock * kVector<T>), kBlock, stream_,
           static_cast<const T*>(gate.data), static_cast<const T*>(up.data), static_cast<T*>(out.data), gate.size());
  });
}

void CudaBackend::row_swiglu(const Matrix& x, const WeightProduct& gate, const WeightProduct& up, const Matrix& out) {
  require_dense("row_swiglu", {gate.out, up.out, out});
  if (out.size() == 0) return;
  const std::vector<SplitSums> sums = begin_row_products(x, {gate, up});
  const SplitSums &gates = sums[0], &ups = sums[1];
  with_type(out.dtype, [&]<typename T>() {
    constexpr int n = kVector<T>;
    T* to = static_cast<T*>(out.data);
    if (gates && ups && fits_vectors<n>(to, out.cols)) {
      return launch("swiglu, splits", swiglu_sums_kernel<T, n>, blocks_for(out.size() / n, kBlock), kBlock, stream_,
                    SplitView(gates), SplitView(ups), to, out.size());
    }
    add_splits(gates, gate.out, false);
    add_splits(ups, up.out, false);
    swiglu(gate.out, up.out, out);
  });
}

void CudaBackend::swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                                  const Matrix& d_up, const Matrix& out) {
  require_dense("swiglu_backward", {gate, up, d_out, d_gate, d_up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu_backward", swiglu_backward_kernel<T, kVector<T>>, blocks_for(gate.size(), kBlock * kVector<T>),
           kBlock, stream_, static_cast<const T*>(gate.data), static_cast<const T*>(up.data),
           static_cast<const T*>(d_out.data), static_cast<T*>(d_gate.data), static_cast<T*>(d_up.data),
           static_cast<T*>(out.data), gate.size());
  });
}

}  // namespace tempora
