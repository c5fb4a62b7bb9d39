// What is done to each number by itself.
#include <algorithm>

#include "check.h"
#include "cuda_backend.h"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

// One thread n numbers.
template <typename From, typename To, int n>
__global__ void cast_kernel(const From* from, To* to, std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n;
  if (i >= size) return;
  float numbers[n];
  load_part(from + i, size - i, numbers);
  store_part(to + i, size - i, numbers);
}

template <int n>
__global__ void scale_kernel(float* x, float factor, std::int64_t size) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n;
  if (i >= size) return;
  float numbers[n];
  load_part(x + i, size - i, numbers);
#pragma unroll
  for (float& number : numbers) number *= factor;
  store_part(x + i, size - i, numbers);
}

template <typename T, int n>
__global__ void find_not_finite_kernel(const T* x, std::int64_t size, int* found) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x) * n;
  if (i >= size) return;
  float numbers[n];
  load_part(x + i, size - i, numbers);
  bool finite = true;
#pragma unroll
  for (const float number : numbers) finite = finite && isfinite(number);
  // Every thread that writes writes the same value.
  if (!finite) *found = 1;
}

}  // namespace

void CudaBackend::cast(const Matrix& from, const Matrix& to) {
  require_dense("cast", {from, to});
  if (from.size() == 0) return;
  with_type(from.dtype, [&]<typename From>() {
    with_type(to.dtype, [&]<typename To>() {
      constexpr int n = std::min(kVector<From>, kVector<To>);
      launch("cast", cast_kernel<From, To, n>, blocks_for(from.size(), kBlock * n), kBlock, stream_,
             static_cast<const From*>(from.data), static_cast<To*>(to.data), from.size());
    });
  });
}

void CudaBackend::scale(const Matrix& x, float factor) {
  require_dense("scale", {x});
  if (x.size() == 0) return;
  constexpr int n = kVector<float>;
  launch("scale", scale_kernel<n>, blocks_for(x.size(), kBlock * n), kBlock, stream_, x.f32(), factor, x.size());
}

bool CudaBackend::all_finite(const Matrix& x) {
  require_dense("all_finite", {x});
  if (x.size() == 0) return true;
  const Buffer found = allocate(sizeof(int), MemoryUse::workspace);
  zero(found.data(), sizeof(int));
  with_type(x.dtype, [&]<typename T>() {
    constexpr int n = kVector<T>;
    launch("find_not_finite", find_not_finite_kernel<T, n>, blocks_for(x.size(), kBlock * n), kBlock, stream_,
           static_cast<const T*>(x.data), x.size(), static_cast<int*>(found.data()));
  });
  int host = 0;
  copy_out(&host, found.data(), sizeof host);
  return host == 0;
}

}  // namespace tempora
