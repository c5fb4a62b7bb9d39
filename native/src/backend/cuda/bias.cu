#include "check.h"
#include "columns.cuh"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

// One thread n numbers of a row.
template <typename X, typename B, int n>
__global__ void add_bias_kernel(X* x, const B* bias, std::int64_t vectors, int width) {
  const std::int64_t vector = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (vector >= vectors) return;
  float numbers[n], biases[n];
  load_vector(x + vector * n, numbers);
  load_vector(bias + vector % (width / n) * n, biases);
#pragma unroll
  for (int i = 0; i < n; ++i) numbers[i] += biases[i];
  store_vector(x + vector * n, numbers);
}

template <typename T, int n>
struct ElementTerm {
  static constexpr int kColumns = n;
  const T* x;
  int width;
  __device__ void add(std::int64_t row, int column, float (&to)[n]) const {
    float numbers[n];
    load_vector(x + row * width + column, numbers);
#pragma unroll
    for (int i = 0; i < n; ++i) to[i] += numbers[i];
  }
};

}  // namespace

void CudaBackend::add_bias(const Matrix& x, const void* bias, DType bias_dtype) {
  require_dense("add_bias", {x});
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename X>() {
    with_type(bias_dtype, [&]<typename B>() {
      X* to = static_cast<X*>(x.data);
      const B* from = static_cast<const B*>(bias);
      const auto add = [&]<int n>() {
        launch("add_bias", add_bias_kernel<X, B, n>, blocks_for(x.size() / n, kBlock), kBlock, stream_, to, from,
               x.size() / n, static_cast<int>(x.cols));
      };
      constexpr int n = kVector<X>;
      if (fits_vectors<n>(to, x.cols) && fits_vectors<n>(from, x.cols)) return add.template operator()<n>();
      add.template operator()<1>();
    });
  });
}

void CudaBackend::bias_backward(const Matrix& d_y, float* d_bias) {
  require_dense("bias_backward", {d_y});
  if (d_y.size() == 0) return;
  with_type(d_y.dtype, [&]<typename T>() {
    const int width = static_cast<int>(d_y.cols);
    const T* from = static_cast<const T*>(d_y.data);
    constexpr int n = kVector<T>;
    if (fits_vectors<n>(from, width)) {
      return add_column_sums(*this, d_y.rows, width, d_bias, ElementTerm<T, n>{from, width}, stream_);
    }
    add_column_sums(*this, d_y.rows, width, d_bias, ElementTerm<T, 1>{from, width}, stream_);
  });
}

}  // namespace tempora
