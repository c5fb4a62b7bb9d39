// Tokens of a row above a range of logits are summed up, those in it set apart.
#pragma once

#include "sampling.h"
#include "simd.h"

namespace tempora::TEMPORA_ISA {

// Lanes of a vector that reach `high`, and those that reach `low` only.
struct Lanes {
  unsigned above, between;
};

#if defined(__AVX512F__)
inline Lanes lanes_of(VecF x, VecF low, VecF high) {
  const auto at_least = [x](VecF least) {
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(least), _CMP_GE_OQ);
  };
  const __mmask16 above = at_least(high);
  return {above, _kandn_mask16(above, at_least(low))};
}

// Adds the weights of the lanes above.
inline VecF add_above(VecF total, Lanes lanes, VecF, VecF, const float* weights) {
  const auto sum = reinterpret_cast<__m512>(total);
  return reinterpret_cast<VecF>(
      _mm512_mask_add_ps(sum, static_cast<__mmask16>(lanes.above), sum, _mm512_loadu_ps(weights)));
}

inline void append_lanes(unsigned lanes, VecF x, float* to) {
  const auto mask = static_cast<__mmask16>(lanes);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(mask, reinterpret_cast<__m512>(x)));
}

#else

inline Lanes lanes_of(VecF x, VecF low, VecF high) {
  const auto at_least = [x](VecF least) {
    const auto mask = x >= least;
#if defined(__AVX2__)
    return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#else
    std::int32_t reached[kWidth];
    __builtin_memcpy(reached, &mask, sizeof mask);
    unsigned lanes = 0;
    for (int i = 0; i < kWidth; ++i) lanes |= (reached[i] != 0 ? 1u : 0u) << i;
    return lanes;
#endif
  };
  const unsigned above = at_least(high);
  return {above, at_least(low) & ~above};
}

inline VecF add_above(VecF total, Lanes, VecF x, VecF high, const float* weights) {
  return total + (x >= high ? load(weights) : splat(0));
}

inline void append_lanes(unsigned lanes, VecF x, float* to) {
  for (; lanes != 0; lanes &= lanes - 1) *to++ = x[__builtin_ctz(lanes)];
}

#endif

// One pass of split(). Logits are looked at by blocks, since branches by vectors are hard to foresee.
class Splitter {
 public:
  Splitter(float low, float high, float* near) : low_(splat(low)), high_(splat(high)), highest_(high), near_(near) {}

  // A block whose largest logit is `most`. Lanes are summed up in f32 within a block only.
  void block(const float* logits, const float* weights, float most) {
    constexpr int kVectors = kSamplingBlock / kWidth;
    Lanes lanes[kVectors];
    unsigned between = 0;
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      lanes[i] = lanes_of(load(logits + i * kWidth), low_, high_);
      between |= lanes[i].between;
    }
    if (most >= highest_) {
      VecF sums = splat(0);
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i)
        sums = add_above(sums, lanes[i], load(logits + i * kWidth), high_, weights + i * kWidth);
      total_ += low_double(sums) + high_double(sums);
    }
    if (between == 0) return;
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      append_lanes(lanes[i].between, load(logits + i * kWidth), near_ + found_);
      found_ += __builtin_popcount(lanes[i].between);
    }
  }

  // Σ weight of those that reach `high` since the last call.
  double take_total() {
    const double total = sum(total_);
    total_ = VecD{};
    return total;
  }
  std::int64_t found() const { return found_; }

 private:
  const VecF low_, high_;
  const float highest_;
  float* const near_;
  VecD total_ = {};
  std::int64_t found_ = 0;
};

}  // namespace tempora::TEMPORA_ISA
