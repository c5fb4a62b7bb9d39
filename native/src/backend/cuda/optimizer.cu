#include <numeric>

#include "../../forest/random.h"
#include "../adamw.h"
#include "../dynamic_map.h"
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

// m and v of one element, brought up to date; returns the weight. adamw.h has the formula.
__device__ float updated(float weight, float gradient, float& m, float& v, const AdamWScalars& s) {
  const float g = gradient * s.gradient_scale;
  m = m + (g - m) * s.one_minus_beta1;
  v = v * s.beta2 + g * g * s.one_minus_beta2;
  const float denominator = sqrtf(v) / s.second_root_correction + s.epsilon;
  return weight * s.keep - s.step_size * (m / denominator);
}

// Moments in f32, or in bf16 with rounding by keys of their own.
template <typename T, typename M>
__global__ void adamw_kernel(T* weight, const float* gradient, M* first, M* second, std::int64_t size, AdamWScalars s) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= size) return;
  float m = load(first + i), v = load(second + i);
  const float next = updated(load(weight + i), gradient[i], m, v, s);
  store_weight(first + i, m, combine_key(s.rounding_key, 1), i);
  store_weight(second + i, v, combine_key(s.rounding_key, 2), i);
  store_weight(weight + i, next, s.rounding_key, i);
}

// The nearest value's code; of two as near the lower one, as DynamicMap::code_of.
__device__ std::uint8_t code_of(const DynamicMap* map, float x) {
  int code = 0;
  for (int step = 128; step > 0; step /= 2) {
    if (x > map->midpoints[code + step - 1]) code += step;
  }
  return static_cast<std::uint8_t>(code);
}

// One block of threads a block of moments.
template <typename T>
__global__ void adamw_blocks8_kernel(T* weight, const float* gradient, std::uint8_t* first, std::uint8_t* second,
                                     float* scales, std::int64_t blocks, std::int64_t size, const DynamicMap* maps,
                                     AdamWScalars s) {
  static_assert(kMomentsBlock == kBlock);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  float *first_scale = scales + blockIdx.x, *second_scale = scales + blocks + blockIdx.x;
  float m = 0, v = 0;
  if (i < size) {
    m = maps[0].values[first[i]] * *first_scale;
    v = maps[1].values[second[i]] * *second_scale;
    store_weight(weight + i, updated(load(weight + i), gradient[i], m, v, s), s.rounding_key, i);
  }
  const float largest_m = block_max(fabsf(m)), largest_v = block_max(v);
  if (i < size) {
    first[i] = code_of(maps, largest_m == 0 ? 0.0f : m / largest_m);
    second[i] = code_of(maps + 1, largest_v == 0 ? 0.0f : v / largest_v);
  }
  if (threadIdx.x != 0) return;
  *first_scale = largest_m;
  *second_scale = largest_v;
}

}  // namespace

double CudaBackend::sum_of_squares(const Matrix& x) {
  require_dense("sum_of_squares", {x});
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

const DynamicMap* CudaBackend::dynamic_maps() {
  if (!dynamic_maps_) {
    dynamic_maps_ = CudaBackend::allocate(2 * sizeof(DynamicMap), MemoryUse::optimizer);
    copy_in(dynamic_maps_.data(), &signed_dynamic_map(), sizeof(DynamicMap));
    copy_in(static_cast<DynamicMap*>(dynamic_maps_.data()) + 1, &unsigned_dynamic_map(), sizeof(DynamicMap));
  }
  return static_cast<const DynamicMap*>(dynamic_maps_.data());
}

void CudaBackend::adamw(const Matrix& weight, const Matrix& gradient, Moments& moments, const AdamWOptions& options) {
  if (weight.size() == 0) return;
  const AdamWScalars scalars = adamw_scalars(options);
  const unsigned blocks = blocks_for(weight.size(), kBlock);
  with_type(weight.dtype, [&]<typename T>() {
    T* weights = static_cast<T*>(weight.data);
    if (moments.format == MomentsFormat::blocks8) {
      std::uint8_t* first = static_cast<std::uint8_t*>(moments.data.data());
      launch("adamw, 8 bit", adamw_blocks8_kernel<T>, blocks, kBlock, stream_, weights, gradient.f32(), first,
             first + moments.size, static_cast<float*>(moments.scales.data()), moments_blocks(moments), weight.size(),
             dynamic_maps(), scalars);
      return;
    }
    with_type(moments.format == MomentsFormat::f32 ? DType::f32 : DType::bf16, [&]<typename M>() {
      M* first = static_cast<M*>(moments.data.data());
      launch("adamw", adamw_kernel<T, M>, blocks, kBlock, stream_, weights, gradient.f32(), first, first + moments.size,
             weight.size(), scalars);
    });
  });
}

}  // namespace tempora
