// Exponentials of vectors: to about 1 ulp, and quicker ones.
#pragma once

#include "simd.h"

namespace tempora::TEMPORA_ISA {

#if !defined(__AVX512F__)
// x to the nearest integer, as a float and as an integer.
struct Rounded {
  VecF number;
  VecI integer;
};

inline Rounded rounded(VecF x) {
  const VecF magic = splat(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  const VecF shifted = x + magic;
  return {shifted - magic, reinterpret_cast<VecI>(shifted) - reinterpret_cast<VecI>(magic)};
}
#endif

// e^x to about 1 ulp (Cephes' expf: x = n ln2 + r, a polynomial in r, times 2^n). 0 and infinity past the ends of
// the range, NaN for NaN.
inline VecF exp(VecF x) {
  x = min(splat(89.0f), max(splat(-104.0f), x));
#if defined(__AVX512F__)
  const __m512 whole = _mm512_maskz_roundscale_ps(0xFFFF, reinterpret_cast<__m512>(x * 1.44269504088896341f), 0);
  const VecF n = reinterpret_cast<VecF>(whole);
#else
  const auto [n, exponent] = rounded(x * 1.44269504088896341f);
#endif
  VecF r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  VecF p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  return reinterpret_cast<VecF>(_mm512_maskz_scalef_ps(0xFFFF, reinterpret_cast<__m512>(p), whole));
#else
  // 2^n as two factors, so that neither leaves the range of normal numbers.
  const VecI half = exponent >> 1;
  const VecF scale_a = reinterpret_cast<VecF>((half + 127) << 23);
  const VecF scale_b = reinterpret_cast<VecF>((exponent - half + 127) << 23);
  return p * scale_a * scale_b;
#endif
}

// 2^x for x <= 127, relative error below 2e-7; 0 below -125, NaN for NaN.
inline VecF exp2(VecF x) {
#if defined(__AVX512F__)
  const VecF n = reinterpret_cast<VecF>(_mm512_maskz_roundscale_ps(0xFFFF, reinterpret_cast<__m512>(x), 0));
  const VecF r = x - n;
#else
  const VecF clamped = x < -125.0f ? splat(-125.0f) : x > 127.0f ? splat(127.0f) : x;
  const auto [whole, n] = rounded(clamped);
  const VecF r = clamped - whole;
#endif
  // Interpolates 2^r at the Chebyshev nodes of [-1/2, 1/2].
  VecF p = splat(1.5461444e-4f);
  p = p * r + 1.3400428e-3f;
  p = p * r + 9.6180567e-3f;
  p = p * r + 5.5503272e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314721e-1f;
  p = p * r + 1.0f;
#if defined(__AVX512F__)
  const __mmask16 some = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);
  return reinterpret_cast<VecF>(_mm512_maskz_scalef_ps(some, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const VecF value = p * reinterpret_cast<VecF>((n + 127) << 23);
  return x < -125.0f ? VecF{} : value;
#endif
}

// 2^x with a relative error of 2^-22 between -125 and 127, less than 2^-124 below. NaN for NaN.
inline VecF quick_exp2(VecF x) {
#if defined(__AVX512F__)
  constexpr int kFloor = 1;  // x - floor(x); 0 of infinities
  const VecF r = reinterpret_cast<VecF>(_mm512_maskz_reduce_ps(0xFFFF, reinterpret_cast<__m512>(x), kFloor));
  // The best of this degree for 2^r on [0, 1] that is 1 at 0 (Remez).
  VecF p = splat(1.8671302e-3f);
  p = p * r + 9.0170298e-3f;
  p = p * r + 5.5799913e-2f;
  p = p * r + 2.4016444e-1f;
  p = p * r + 6.9315130e-1f;
  p = p * r + 1.0f;
  // Takes floor(x) by itself.
  return reinterpret_cast<VecF>(
      _mm512_maskz_scalef_ps(0xFFFF, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(x)));
#else
  return exp2(x);
#endif
}

// e^x with a relative error of 2^-22 + 1.25 · |x| · 2^-24, which is enough where the result is rounded to bf16, and in
// sums of exponentials that have the largest x for their zero. 0 and infinity past the ends of the range, NaN for NaN.
inline VecF quick_exp(VecF x) {
#if defined(__AVX512F__)
  return quick_exp2(x * 1.44269504088896341f);
#else
  return exp(x);
#endif
}

// Of activations of type T.
template <typename T>
inline VecF sigmoid(VecF x) {
  return 1.0f / (1.0f + (sizeof(T) == sizeof(Bf16) ? quick_exp(-x) : exp(-x)));
}

}  // namespace tempora::TEMPORA_ISA
