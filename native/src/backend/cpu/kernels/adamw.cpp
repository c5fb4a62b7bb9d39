#include "adamw.h"

#include "noise.h"

namespace tempora::TEMPORA_ISA {
namespace {

#if defined(__AVX512F__)
inline VecF square_root(VecF x) {
  return reinterpret_cast<VecF>(_mm512_maskz_sqrt_ps(0xFFFF, reinterpret_cast<__m512>(x)));
}
#elif defined(__AVX2__)
inline VecF square_root(VecF x) { return reinterpret_cast<VecF>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x))); }
#else
inline VecF square_root(VecF x) {
  for (int i = 0; i < kWidth; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
#endif

inline VecF updated(VecF weight, VecF gradient, VecF& first, VecF& second, const AdamWScalars& s) {
  const VecF g = gradient * s.gradient_scale;
  first = first + (g - first) * s.one_minus_beta1;
  second = second * s.beta2 + g * g * s.one_minus_beta2;
  const VecF denominator = square_root(second) / s.second_root_correction + s.epsilon;
  return weight * s.keep - s.step_size * (first / denominator);
}

void update_f32(float* weight, const float* gradient, float* first, float* second, const AdamWScalars& scalars,
                std::int64_t begin, std::int64_t end) {
  const AdamWScalars s = scalars;
  weight += begin, gradient += begin;
  for_streamed_vectors(end - begin, [=](auto load, auto store) {
    VecF m = load(first), v = load(second);
    store(weight, updated(load(weight), load(gradient), m, v, s));
    store(first, m);
    store(second, v);
  });
}

void update_bf16(std::uint16_t* weight, const float* gradient, float* first, float* second, const AdamWScalars& scalars,
                 std::int64_t begin, std::int64_t end) {
  const AdamWScalars s = scalars;
  weight += begin, gradient += begin;
  std::int64_t element = begin;
  for_streamed_vectors(end - begin, [=, &element](auto load, auto store) {
    VecF m = load(first), v = load(second);
    const VecF exact = updated(load(weight), load(gradient), m, v, s);
    const VecU noisy = reinterpret_cast<VecU>(exact) + noise_bits(s.rounding_key, element);
    // What is not finite is kept as it is; the bits left after masking are a bf16, which the store keeps.
    const VecU bits = exact - exact == splat(0) ? noisy & 0xFFFF0000u : reinterpret_cast<VecU>(exact);
    store(weight, reinterpret_cast<VecF>(bits));
    store(first, m);
    store(second, v);
    element += kWidth;
  });
}

}  // namespace

const AdamWKernels adamw_kernels = {update_f32, update_bf16};

}  // namespace tempora::TEMPORA_ISA
