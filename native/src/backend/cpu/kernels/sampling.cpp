#include "sampling.h"

#include "simd.h"

namespace tempora::TEMPORA_ISA {
namespace {

void block_maxima(const float* logits, std::int64_t n, float* maxima) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock) {
    const std::int64_t count = n < kSamplingBlock ? n : kSamplingBlock;
    VecF top = splat(-__builtin_inff());
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) top = max(load(logits + i), top);
    if (i < count) top = max(load_part(logits + i, count - i, -__builtin_inff()), top);
    *maxima++ = max_lane(top);
  }
}

void block_exp_sums(const float* logits, std::int64_t n, float shift, float scale, float* sums) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock) {
    const std::int64_t count = n < kSamplingBlock ? n : kSamplingBlock;
    VecF total = splat(0);
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) total += exp((load(logits + i) - shift) * scale);
    if (i < count) total += exp((load_part(logits + i, count - i, -__builtin_inff()) - shift) * scale);
    *sums++ = sum(total);
  }
}

void exp_weights(const float* logits, std::int64_t n, float shift, float scale, float* weights) {
  for_vectors(n, [=](auto load, auto store) { store(weights, exp((load(logits) - shift) * scale)); });
}

// Bit i: lane i is in [low, high).
unsigned lanes_between(VecF x, float low, float high) {
#if defined(__AVX512F__)
  const __m512 v = reinterpret_cast<__m512>(x);
  return _mm512_cmp_ps_mask(v, _mm512_set1_ps(low), _CMP_GE_OQ) &
         _mm512_cmp_ps_mask(v, _mm512_set1_ps(high), _CMP_LT_OQ);
#elif defined(__AVX2__)
  const __m256 v = reinterpret_cast<__m256>(x);
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_and_ps(_mm256_cmp_ps(v, _mm256_set1_ps(low), _CMP_GE_OQ),
                                                                _mm256_cmp_ps(v, _mm256_set1_ps(high), _CMP_LT_OQ))));
#else
  unsigned lanes = 0;
  for (int i = 0; i < kWidth; ++i) lanes |= (x[i] >= low && x[i] < high ? 1u : 0u) << i;
  return lanes;
#endif
}

std::int64_t split(const float* logits, const float* maxima, std::int64_t n, const SamplingSplit& at, double* sums,
                   std::int32_t* between) {
  std::int64_t found = 0;
  for (std::int64_t first = 0; first < n; first += kSamplingBlock, ++sums) {
    *sums = 0;
    if (*maxima++ < at.low) continue;
    const std::int64_t end = n - first < kSamplingBlock ? n : first + kSamplingBlock;
    VecD total = {};
    for (std::int64_t i = first; i < end; i += kWidth) {
      const VecF x = i + kWidth <= end ? load(logits + i) : load_part(logits + i, end - i, -__builtin_inff());
      const VecF weight = x >= at.high ? exp((x - at.shift) * at.scale) : splat(0);
      total += low_double(weight) + high_double(weight);
      unsigned lanes = lanes_between(x, at.low, at.high);
      if (end - i < kWidth) lanes &= (1u << (end - i)) - 1;
      for (; lanes != 0; lanes &= lanes - 1) {
        between[found++] = static_cast<std::int32_t>(i + __builtin_ctz(lanes));
      }
    }
    *sums = sum(total);
  }
  return found;
}

}  // namespace

const SamplingKernels sampling_kernels = {block_maxima, block_exp_sums, exp_weights, split};

}  // namespace tempora::TEMPORA_ISA
