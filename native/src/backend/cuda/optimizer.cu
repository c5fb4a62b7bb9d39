#include <cmath>
#include <numeric>

#include "../../engine/random.h"
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

struct AdamWNumbers {
  float gradient_scale, one_minus_beta1, beta2, one_minus_beta2, epsilon, decay, step_size, second_root_correction;
  std::uint64_t rounding_key;
};

__device__ void store_weight(float* p, float value, std::uint64_t, std::int64_t) { *p = value; }
__device__ void store_weight(bf16* p, float value, std::uint64_t key, std::int64_t element) {
  *p = round_stochastically(value, key, element);
}

// torch.optim.AdamW: decay first, then the step along m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon). Clipping is the
// factor gradient_scale.
template <typename T>
__global__ void adamw_kernel(T* weight, const float* gradient, float* first, float* second, std::int64_t size,
                             AdamWNumbers n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  const float g = gradient[i] * n.gradient_scale;
  const float m = first[i] + (g - first[i]) * n.one_minus_beta1;
  const float v = second[i] * n.beta2 + g * g * n.one_minus_beta2;
  first[i] = m;
  second[i] = v;
  const float denominator = sqrtf(v) / n.second_root_correction + n.epsilon;
  store_weight(weight + i, load(weight + i) * n.decay - n.step_size * (m / denominator), n.rounding_key, i);
}

}  // namespace

double CudaBackend::sum_of_squares(const Matrix& x) {
  if (x.size() == 0) return 0;
  const Buffer partial = allocate(kSumBlocks * sizeof(double), MemoryUse::workspace);
  with_type(x.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    launch("sum_of_squares", sum_of_squares_kernel<T>, kSumBlocks, kBlock, stream_, static_cast<const T*>(x.data),
           x.size(), static_cast<double*>(partial.data()));
  });
  std::vector<double> host(kSumBlocks);
  copy_out(host.data(), partial.data(), host.size() * sizeof(double));
  return std::accumulate(host.begin(), host.end(), 0.0);
}

void CudaBackend::adamw(const Matrix& weight, const Matrix& gradient, float* first, float* second,
                        const AdamWOptions& o) {
  if (weight.size() == 0) return;
  const auto step = static_cast<double>(o.step);
  const AdamWNumbers numbers{
      .gradient_scale = static_cast<float>(o.gradient_scale),
      // Subtracted in f64: 1 - 0.999f is off by a part in 80,000.
      .one_minus_beta1 = static_cast<float>(1 - o.beta1),
      .beta2 = static_cast<float>(o.beta2),
      .one_minus_beta2 = static_cast<float>(1 - o.beta2),
      .epsilon = static_cast<float>(o.epsilon),
      .decay = static_cast<float>(1 - o.learning_rate * o.weight_decay),
      .step_size = static_cast<float>(o.learning_rate / (1 - std::pow(o.beta1, step))),
      .second_root_correction = static_cast<float>(std::sqrt(1 - std::pow(o.beta2, step))),
      .rounding_key = o.rounding_key,
  };
  with_type(weight.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    launch("adamw", adamw_kernel<T>, blocks_for(weight.size(), kBlock), kBlock, stream_, static_cast<T*>(weight.data),
           gradient.f32(), first, second, weight.size(), numbers);
  });
}

}  // namespace tempora
