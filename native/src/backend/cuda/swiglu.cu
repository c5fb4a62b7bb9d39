#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T>
__global__ void swiglu_kernel(const T* gate, const T* up, T* out, std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const float g = load(gate + i);
  store(out + i, g * sigmoid(g) * load(up + i));
}

template <typename T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* d_out, T* d_gate, T* d_up, T* out,
                                       std::int64_t size) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const float g = load(gate + i), u = load(up + i), d = load(d_out + i);
  const float s = sigmoid(g);
  const float silu = g * s;
  if (out != nullptr) store(out + i, silu * u);
  store(d_gate + i, d * u * (s + silu * (1.0f - s)));
  store(d_up + i, d * silu);
}

}  // namespace

void CudaBackend::swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) {
  require_dense("swiglu", {gate, up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu", swiglu_kernel<T>, blocks_for(gate.size(), kBlock), kBlock, stream_,
           static_cast<const T*>(gate.data), static_cast<const T*>(up.data), static_cast<T*>(out.data), gate.size());
  });
}

void CudaBackend::swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                                  const Matrix& d_up, const Matrix& out) {
  require_dense("swiglu_backward", {gate, up, d_out, d_gate, d_up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu_backward", swiglu_backward_kernel<T>, blocks_for(gate.size(), kBlock), kBlock, stream_,
           static_cast<const T*>(gate.data), static_cast<const T*>(up.data), static_cast<const T*>(d_out.data),
           static_cast<T*>(d_gate.data), static_cast<T*>(d_up.data), static_cast<T*>(out.data), gate.size());
  });
}

}  // namespace tempora
