#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// A thread has 16 bytes of each matrix.
template <typename T>
constexpr int kElements = 16 / sizeof(T);

template <typename T>
struct alignas(16) Elements {
  T at[kElements<T>];
};

// Whether a thread's elements are all there and lie where 16 bytes may be read at once.
template <typename T>
__device__ bool whole(const T* data, std::int64_t i, std::int64_t size) {
  return i + kElements<T> <= size && reinterpret_cast<std::uintptr_t>(data) % sizeof(Elements<T>) == 0;
}

template <typename T>
__device__ Elements<T> load_elements(const T* from, std::int64_t i, std::int64_t size) {
  if (whole(from, i, size)) return *reinterpret_cast<const Elements<T>*>(from + i);
  Elements<T> elements{};
  for (int j = 0; j < kElements<T> && i + j < size; ++j) elements.at[j] = from[i + j];
  return elements;
}

template <typename T>
__device__ void store_elements(T* to, std::int64_t i, std::int64_t size, const Elements<T>& elements) {
  if (whole(to, i, size)) {
    *reinterpret_cast<Elements<T>*>(to + i) = elements;
    return;
  }
  for (int j = 0; j < kElements<T> && i + j < size; ++j) to[i + j] = elements.at[j];
}

template <typename T>
__global__ void swiglu_kernel(const T* gate, const T* up, T* out, std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * kElements<T>;
  if (i >= size) return;
  const Elements<T> gates = load_elements(gate, i, size), ups = load_elements(up, i, size);
  Elements<T> outs;
#pragma unroll
  for (int j = 0; j < kElements<T>; ++j) {
    const float g = load(gates.at + j);
    store(outs.at + j, g * sigmoid(g) * load(ups.at + j));
  }
  store_elements(out, i, size, outs);
}

template <typename T>
__global__ void swiglu_backward_kernel(const T* gate, const T* up, const T* d_out, T* d_gate, T* d_up, T* out,
                                       std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * kElements<T>;
  if (i >= size) return;
  const Elements<T> gates = load_elements(gate, i, size), ups = load_elements(up, i, size);
  const Elements<T> d_outs = load_elements(d_out, i, size);
  Elements<T> outs, d_gates, d_ups;
#pragma unroll
  for (int j = 0; j < kElements<T>; ++j) {
    const float g = load(gates.at + j), u = load(ups.at + j), d = load(d_outs.at + j);
    const float s = sigmoid(g);
    const float silu = g * s;
    store(outs.at + j, silu * u);
    store(d_gates.at + j, d * u * (s + silu * (1.0f - s)));
    store(d_ups.at + j, d * silu);
  }
  if (out != nullptr) store_elements(out, i, size, outs);
  store_elements(d_gate, i, size, d_gates);
  store_elements(d_up, i, size, d_ups);
}

}  // namespace

void CudaBackend::swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) {
  require_dense("swiglu", {gate, up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu", swiglu_kernel<T>, blocks_for(gate.size(), kBlock * kElements<T>), kBlock, stream_,
           static_cast<const T*>(gate.data), static_cast<const T*>(up.data), static_cast<T*>(out.data), gate.size());
  });
}

void CudaBackend::swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                                  const Matrix& d_up, const Matrix& out) {
  require_dense("swiglu_backward", {gate, up, d_out, d_gate, d_up, out});
  if (gate.size() == 0) return;
  with_type(gate.dtype, [&]<typename T>() {
    launch("swiglu_backward", swiglu_backward_kernel<T>, blocks_for(gate.size(), kBlock * kElements<T>), kBlock,
           stream_, static_cast<const T*>(gate.data), static_cast<const T*>(up.data), static_cast<const T*>(d_out.data),
           static_cast<T*>(d_gate.data), static_cast<T*>(d_up.data), static_cast<T*>(out.data), gate.size());
  });
}

}  // namespace tempora
