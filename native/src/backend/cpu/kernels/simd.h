// Vectors of floats as wide as the instruction set this file is compiled for. GCC vector extensions: operators work
// on whole vectors, comparisons give masks for `mask ? a : b`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace tempora::TEMPORA_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

using VecF = float __attribute__((vector_size(kWidth * 4)));
using VecI = std::int32_t __attribute__((vector_size(kWidth * 4)));
using VecU = std::uint32_t __attribute__((vector_size(kWidth * 4)));
using VecH = std::uint16_t __attribute__((vector_size(kWidth * 2)));
using VecD = double __attribute__((vector_size(kWidth * 4)));  // half as many lanes
using HalfF = float __attribute__((vector_size(kWidth * 2)));

// bf16 bits.
using Bf16 = std::uint16_t;

inline VecF splat(float x) { return x - VecF{}; }

inline VecF load(const float* from) {
  VecF v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, VecF v) { __builtin_memcpy(to, &v, sizeof v); }

inline VecF load(const Bf16* from) {
#if defined(__AVX512F__)
  // By intrinsic, as gcc 12 splits the generic conversion in two; masked, as its unmasked form warns.
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return reinterpret_cast<VecF>(reinterpret_cast<VecU>(_mm512_maskz_cvtepu16_epi32(0xFFFF, h)) << 16);
#elif defined(__AVX2__)
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<VecF>(reinterpret_cast<VecU>(_mm256_cvtepu16_epi32(h)) << 16);
#else
  VecH h;
  __builtin_memcpy(&h, from, sizeof h);
  return reinterpret_cast<VecF>(__builtin_convertvector(h, VecU) << 16);
#endif
}

// Round to nearest even; a NaN stays one.
inline VecU bf16_bits(VecF v) {
  const VecU bits = reinterpret_cast<VecU>(v);
  const VecU rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return v == v ? rounded : (bits >> 16) | 0x40u;
}

inline void store(Bf16* to, VecF v) {
#if defined(__AVX512BF16__)
  // The instruction rounds so too, but takes numbers below the normal ones for zeros.
  constexpr int kDenormal = 0x20;
  if (__builtin_expect(_mm512_fpclass_ps_mask(reinterpret_cast<__m512>(v), kDenormal) == 0, 1)) {
    const __m256bh h = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
    __builtin_memcpy(to, &h, sizeof h);
    return;
  }
#endif
  const VecH h = __builtin_convertvector(bf16_bits(v), VecH);
  __builtin_memcpy(to, &h, sizeof h);
}

inline float widen(float x) { return x; }

inline float widen(Bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}

inline void store_one(float* to, float x) { *to = x; }

inline void store_one(Bf16* to, float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  *to = static_cast<Bf16>(x == x ? (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16 : (bits >> 16) | 0x40u);
}

// The first `count` < kWidth elements; the others are `fill`.
template <typename T>
inline VecF load_part(const T* from, std::int64_t count, float fill = 0) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    return reinterpret_cast<VecF>(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, from));
  }
#endif
  VecF v = splat(fill);
  for (std::int64_t i = 0; i < count; ++i) v[i] = widen(from[i]);
  return v;
}

template <typename T>
inline void store_part(T* to, VecF v, std::int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    return _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(v));
  }
#endif
  for (std::int64_t i = 0; i < count; ++i) store_one(to + i, v[i]);
}

// body(load, store, i) for each vector of [0, n): `load(pointer)` reads at i, `store(pointer, v)` writes there; the
// last, partial vector reads zeros past the end.
// kAhead: bytes from what is read to what is asked for.
template <std::int64_t kAhead = 0, typename Body>
inline void for_vectors(std::int64_t n, Body body) {
  std::int64_t i = 0;
  const auto whole = [&i](const auto* p) {
    if (kAhead > 0) __builtin_prefetch(reinterpret_cast<const char*>(p + i) + kAhead);
    return load(p + i);
  };
  for (; i + kWidth <= n; i += kWidth) {
    body(whole, [i](auto* p, VecF v) { store(p + i, v); });
  }
  if (i < n) {
    body([i, n](const auto* p) { return load_part(p + i, n - i); },
         [i, n](auto* p, VecF v) { store_part(p + i, v, n - i); });
  }
}

// The same over numbers that come from memory: the processor's own prefetching is late, and ends with a page.
constexpr std::int64_t kStreamAhead = 2048;
template <typename Body>
inline void for_streamed_vectors(std::int64_t n, Body body) {
  for_vectors<kStreamAhead>(n, body);
}

// a where it is larger, else b: NaN in b stays, NaN in a does not. (gcc 12 makes two instructions of the generic form.)
inline VecF max(VecF a, VecF b) {
#if defined(__AVX512F__)
  return reinterpret_cast<VecF>(_mm512_maskz_max_ps(0xFFFF, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<VecF>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a > b ? a : b;
#endif
}

// a where it is smaller, else b.
inline VecF min(VecF a, VecF b) {
#if defined(__AVX512F__)
  return reinterpret_cast<VecF>(_mm512_maskz_min_ps(0xFFFF, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<VecF>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#else
  return a < b ? a : b;
#endif
}

// These lanes of the concatenation of two vectors, by the word that gcc (11 has but this) or clang has for it. Mask: as
// many integers of a lane's size.
template <typename Mask, int... kLane, typename Vector>
inline Vector shuffle_as(Vector a, Vector b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kLane...);
#else
  return __builtin_shuffle(a, b, Mask{kLane...});
#endif
}

template <int... kLane>
inline VecF shuffle(VecF a, VecF b) {
  return shuffle_as<VecI, kLane...>(a, b);
}

// The lane kStep behind each.
template <int kStep, int... kLane>
inline VecF lanes_behind(VecF v, std::integer_sequence<int, kLane...>) {
  return shuffle<((kLane + kStep) % kWidth)...>(v, v);
}

// Joins all lanes in a fixed order: halves, quarters, ...
template <int kHalf = kWidth / 2, typename Join>
inline float fold(VecF v, Join join) {
  if constexpr (kHalf == 0) {
    return v[0];
  } else {
    return fold<kHalf / 2>(join(v, lanes_behind<kHalf>(v, std::make_integer_sequence<int, kWidth>())), join);
  }
}

inline float sum(VecF v) {
  return fold(v, [](VecF a, VecF b) { return a + b; });
}

inline double sum(VecD v) {
  double total = v[0];
  for (int i = 1; i < kWidth / 2; ++i) total += v[i];
  return total;
}

inline float max_lane(VecF v) {
  return fold(v, [](VecF a, VecF b) { return max(a, b); });
}

#if defined(__AVX512F__)
// gcc 12 goes through memory for the generic forms, and warns of the unmasked ones.
template <int kHalf>
inline VecD half_double(VecF v) {
  const __m256d half = _mm512_maskz_extractf64x4_pd(0xF, reinterpret_cast<__m512d>(v), kHalf);
  return reinterpret_cast<VecD>(_mm512_maskz_cvtps_pd(0xFF, _mm256_castpd_ps(half)));
}

inline VecD low_double(VecF v) { return half_double<0>(v); }
inline VecD high_double(VecF v) { return half_double<1>(v); }
#else
inline VecD low_double(VecF v) {
  HalfF h;
  __builtin_memcpy(&h, &v, sizeof h);
  return __builtin_convertvector(h, VecD);
}

inline VecD high_double(VecF v) {
  HalfF h;
  __builtin_memcpy(&h, reinterpret_cast<const char*>(&v) + sizeof h, sizeof h);
  return __builtin_convertvector(h, VecD);
}
#endif

}  // namespace tempora::TEMPORA_ISA
