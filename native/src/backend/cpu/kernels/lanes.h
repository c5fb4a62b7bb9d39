// The lanes of a vector that a matrix's last columns fill.
#pragma once

#include "simd.h"

namespace tempora::TEMPORA_ISA {

#if defined(__AVX512F__)

// The first `count` of 16 words.
inline __mmask16 first_words(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFFu : (1u << (count < 0 ? 0 : count)) - 1);
}

// The first `count` lanes, which may be all, or none. Others are loaded as zeros, and not stored.
struct FirstLanes {
  __mmask16 mask;

  explicit FirstLanes(std::int64_t count) : mask(first_words(count)) {}

  VecF load(const float* from) const { return reinterpret_cast<VecF>(_mm512_maskz_loadu_ps(mask, from)); }
  VecF load(const Bf16* from) const {
    // A masked widening, since GCC 12 warns of the plain one's unused operand.
    const __m512i words = _mm512_maskz_cvtepu16_epi32(0xFFFF, _mm256_maskz_loadu_epi16(mask, from));
    return reinterpret_cast<VecF>(reinterpret_cast<VecU>(words) << 16);
  }
  VecU load_words(const void* from) const { return reinterpret_cast<VecU>(_mm512_maskz_loadu_epi32(mask, from)); }

  void store(float* to, VecF v) const { _mm512_mask_storeu_ps(to, mask, reinterpret_cast<__m512>(v)); }
  void store(Bf16* to, VecF v) const {
#if defined(__AVX512BF16__)
    // Numbers below the normal ones become zeros, as in the products that these are sums of.
    const auto halves = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v)));
#else
    const auto halves = reinterpret_cast<__m256i>(__builtin_convertvector(bf16_bits(v), VecH));
#endif
    _mm256_mask_storeu_epi16(to, mask, halves);
  }
};

#else

// As above.
struct FirstLanes {
  std::int64_t count;

  explicit FirstLanes(std::int64_t lanes) : count(lanes) {}

  template <typename T>
  VecF load(const T* from) const {
    return count >= kWidth ? tempora::TEMPORA_ISA::load(from) : load_part(from, count);
  }
  VecU load_words(const void* from) const {
    VecU words{};
    if (count >= kWidth) {
      __builtin_memcpy(&words, from, sizeof words);
    } else if (count > 0) {
      __builtin_memcpy(&words, from, static_cast<std::size_t>(count) * 4);
    }
    return words;
  }
  template <typename T>
  void store(T* to, VecF v) const {
    if (count >= kWidth) {
      tempora::TEMPORA_ISA::store(to, v);
    } else {
      store_part(to, v, count);
    }
  }
};

#endif

}  // namespace tempora::TEMPORA_ISA
