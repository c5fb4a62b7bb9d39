// What the kernels share: conversions, reductions in a fixed order, and the choice of an element type.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "../backend.h"
#include "check.h"

namespace tempora::device {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr int kBlock = 256;  // threads of a block, unless a kernel says otherwise

__device__ inline float load(const float* p) { return *p; }
__device__ inline float load(const bf16* p) { return __bfloat162float(*p); }
__device__ inline void store(float* p, float value) { *p = value; }
__device__ inline void store(bf16* p, float value) { *p = __float2bfloat16_rn(value); }

// The sum over a warp, in every lane; the order is fixed (a butterfly).
__device__ inline float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ inline double warp_sum(double value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

__device__ inline float warp_max(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// The sum over a block of whole warps, in every thread. May be called again right away.
template <typename T>
__device__ inline T block_sum(T value) {
  __shared__ T partial[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_sum(value);
  __syncthreads();
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) sum += partial[i];
  return sum;
}

__device__ inline float block_max(float value) {
  __shared__ float partial[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = warp_max(value);
  __syncthreads();
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  float largest = partial[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / kWarp; ++i) largest = fmaxf(largest, partial[i]);
  return largest;
}

// Queues a kernel. What the device refuses about the launch is thrown here, what goes wrong in the kernel by the next
// synchronisation. (Not by <<<>>>, so that the tests can compile and run the kernels on a machine without CUDA.)
struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;  // beside what the kernel declares
};

template <typename... Parameters, typename... Arguments>
void launch(const char* kernel_name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            const Arguments&... arguments) {
  // More than every device has must be asked for.
  constexpr std::size_t kWithoutAsking = std::size_t{48} << 10;
  if (shape.shared_bytes > kWithoutAsking) {
    check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)),
        kernel_name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), kernel_name);
}

template <typename... Parameters, typename... Arguments>
void launch(const char* kernel_name, void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
            const Arguments&... arguments) {
  launch(kernel_name, kernel, LaunchShape{grid, block}, stream, arguments...);
}

inline unsigned blocks_for(std::int64_t work, int per_block) {
  return static_cast<unsigned>((work + per_block - 1) / per_block);
}

// Calls work.operator()<T>() with the element type T of a dtype.
template <typename Work>
void with_type(DType dtype, Work work) {
  if (dtype == DType::f32) {
    work.template operator()<float>();
  } else {
    work.template operator()<bf16>();
  }
}

}  // namespace tempora::device
