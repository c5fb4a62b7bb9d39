#include <numeric>

#include "../../forest/random.h"
#include "../adamw.h"
#include "check.h"
#include "cuda_backend.h"
#include "device.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kSumBlocks = 512;

// Block b sums elements b·256 + thread, then every 512·256 further: the order depends on the size alone.
template <typename T>
__global__ void sum_of_squares_kernel(const T* x, std::int64_t size, double* partial) {
  double sum = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < size;
       i += static_cast<std::int64_t>(kSumBlocks) * kBlock) {
    const double value = load(x + i);
    sum += value * value;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Rounds to bf16 up or down with the probability that makes the expectation the value itself. The CPU's kernel draws
// the same 16 bits for an element: four elements share a word.
__device__ bf16 round_stochastically(float value, std::uint64_t key, std::int64_t element) {
  const std::uint64_t word = combine_key(key, static_cast<std::uint64_t>(element / 4));
  const std::uint32_t noise = static_cast<std::uint32_t>(word >> (16 * (element % 4))) & 0xffffu;
  const std::uint32_t bits = __float_as_uint(value);
  // Infinity and NaN stay what they are.
  const std::uint32_t rounded = (bits & 0x7f800000u) == 0x7f800000u ? bits : bits + noise;
  return __ushort_as_bfloat16(static_cast<unsigned short>(rounded >> 16));
}

__device__ void store_weight(float* p, float value, std::uint64_t, std::int64_t) { *p = value; }
__device__ void store_weight(bf16* p, float value, std::uint64_t key, std::int64_t element) {
  *p = round_stochastically(value, key, element);
}

template <typename T>
__global__ void adamw_kernel(T* weight, const float* gradient, float* first, float* second, std::int64_t size,
                             AdamWScalars s) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const float g = gradient[i] * s.gradient_scale;
  const float m = first[i] + (g - first[i]) * s.one_minus_beta1;
  const float v = second[i] * s.beta2 + g * g * s.one_minus_beta2;
  first[i] = m;
  second[i] = v;
  const float denominator = sqrtf(v) / s.second_root_correction + s.epsilon;
  store_weight(weight + i, load(weight + i) * s.keep - s.step_size * (m / denominator), s.rounding_key, i);
}

}  // namespace

double CudaBackend::sum_of_squares(const Matrix& x) {
  if (x.size() == 0) return 0;
  const Buffer partial = allocate(kSumBlocks * sizeof(double), MemoryUse::workspace);
  with_type(x.dtype, [&]<typename T>() {
    launch("sum_of_squares", sum_of_squares_kernel<T>, kSumBlocks, kBlock, stream_, static_cast<const T*>(x.data),
           x.size(), static_cast<double*>(partial.data()));
  });
  std::vector<double> host(kSumBlocks);
  copy_out(host.data(), partial.data(), host.size() * sizeof(double));
  return std::accumulate(host.begin(), host.end(), 0.0);
}

Moments CudaBackend::make_moments(MomentsFormat format, std::int64_t size) {
  Moments moments{format, size, allocate(static_cast<std::size_t>(size) * 2 * sizeof(float), MemoryUse::optimizer), {}};
  zero(moments.data.data(), moments.data.bytes());
  return moments;
}

void CudaBackend::get_moments(const Moments& moments, float* first, float* second) {
  const std::size_t bytes = static_cast<std::size_t>(moments.size) * sizeof(float);
  copy_out(first, moments.data.data(), bytes);
  copy_out(second, static_cast<const float*>(moments.data.data()) + moments.size, bytes);
}

void CudaBackend::set_moments(Moments& moments, const float* first, const float* second) {
  const std::size_t bytes = static_cast<std::size_t>(moments.size) * sizeof(float);
  copy_in(moments.data.data(), first, bytes);
  copy_in(static_cast<float*>(moments.data.data()) + moments.size, second, bytes);
}

void CudaBackend::adamw(const Matrix& weight, const Matrix& gradient, Moments& moments, const AdamWOptions& options) {
  if (weight.size() == 0) return;
  float* first = static_cast<float*>(moments.data.data());
  float* second = first + moments.size;
  const AdamWScalars scalars = adamw_scalars(options);
  with_type(weight.dtype, [&]<typename T>() {
    launch("adamw", adamw_kernel<T>, blocks_for(weight.size(), kBlock), kBlock, stream_, static_cast<T*>(weight.data),
           gradient.f32(), first, second, weight.size(), scalars);
  });
}

}  // namespace tempora
