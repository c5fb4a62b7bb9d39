#include "check.h"
#include "columns.cuh"
#include "cuda_backend.h"

namespace tempora {
namespace {

using namespace device;

template <typename X, typename B>
__global__ void add_bias_kernel(X* x, const B* bias, std::int64_t size, int width) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i < size) store(x + i, load(x + i) + load(bias + i % width));
}

template <typename T>
struct ElementTerm {
  const T* x;
  int width;
  __device__ float operator()(std::int64_t row, int column) const { return load(x + row * width + column); }
};

}  // namespace

void CudaBackend::add_bias(const Matrix& x, const void* bias, DType bias_dtype) {
  require_dense("add_bias", {x});
  if (x.size() == 0) return;
  with_type(x.dtype, [&]<typename X>() {
    with_type(bias_dtype, [&]<typename B>() {
      launch("add_bias", add_bias_kernel<X, B>, blocks_for(x.size(), kBlock), kBlock, stream_, static_cast<X*>(x.data),
             static_cast<const B*>(bias), x.size(), static_cast<int>(x.cols));
    });
  });
}

void CudaBackend::bias_backward(const Matrix& d_y, float* d_bias) {
  require_dense("bias_backward", {d_y});
  if (d_y.size() == 0) return;
  with_type(d_y.dtype, [&]<typename T>() {
    const int width = static_cast<int>(d_y.cols);
    const Buffer parts = allocate(column_scratch_bytes(d_y.rows, width), MemoryUse::workspace);
    add_column_sums(d_y.rows, width, d_bias, static_cast<float*>(parts.data()),
                    ElementTerm<T>{static_cast<const T*>(d_y.data), width}, stream_);
  });
}

}  // namespace tempora
