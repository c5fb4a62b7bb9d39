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

void block_exp_sums_twice(const float* logits, std::int64_t n, float shift, float scale, float* plain, float* scaled) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock) {
    const std::int64_t count = n < kSamplingBlock ? n : kSamplingBlock;
    VecF total[2] = {splat(0), splat(0)};
    const auto add = [&](VecF x) {
      const VecF distance = x - shift;
      total[0] += exp(distance);
      total[1] += exp(distance * scale);
    };
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) add(load(logits + i));
    if (i < count) add(load_part(logits + i, count - i, -__builtin_inff()));
    *plain++ = sum(total[0]);
    *scaled++ = sum(total[1]);
  }
}

void exp_weights(const float* logits, std::int64_t n, float shift, float scale, float* weights) {
  for_vectors(n, [=](auto load, auto store) { store(weights, exp((load(logits) - shift) * scale)); });
}

// Bit i: lane i reaches `least`.
unsigned lanes_from(VecF x, float least) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), _mm512_set1_ps(least), _CMP_GE_OQ);
#elif defined(__AVX2__)
  return static_cast<unsigned>(
      _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(x), _mm256_set1_ps(least), _CMP_GE_OQ)));
#else
  unsigned lanes = 0;
  for (int i = 0; i < kWidth; ++i) lanes |= (x[i] >= least ? 1u : 0u) << i;
  return lanes;
#endif
}

void append_lanes(unsigned lanes, VecF x, std::int64_t first, const SamplingNear& near, std::int64_t at) {
#if defined(__AVX512F__)
  const __m512i ids = _mm512_add_epi32(_mm512_set1_epi32(static_cast<std::int32_t>(first)),
                                       _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const auto mask = static_cast<__mmask16>(lanes);
  _mm512_storeu_ps(near.logits + at, _mm512_maskz_compress_ps(mask, reinterpret_cast<__m512>(x)));
  _mm512_storeu_si512(near.tokens + at, _mm512_maskz_compress_epi32(mask, ids));
#else
  for (; lanes != 0; lanes &= lanes - 1, ++at) {
    const int lane = __builtin_ctz(lanes);
    near.logits[at] = x[lane];
    near.tokens[at] = static_cast<std::int32_t>(first) + lane;
  }
#endif
}

// One pass of split(). Logits are looked at by blocks, since branches by vectors are hard to foresee.
class Splitter {
 public:
  Splitter(const SamplingSplit& at, const SamplingNear& near) : at_(at), near_(near) {}

  // Lanes are summed up in f32 within a block only.
  void block(const float* logits, std::int64_t first, std::int64_t count, VecD* total) {
    constexpr int kVectors = kSamplingBlock / kWidth;
    VecF x[kVectors];
    unsigned between[kVectors], any_above = 0, any_between = 0;
    for (int i = 0; i < kVectors; ++i) {
      const std::int64_t begin = i * kWidth, left = count - begin;
      x[i] = left >= kWidth ? load(logits + first + begin)
                            : load_part(logits + first + begin, left > 0 ? left : 0, -__builtin_inff());
      const unsigned above = lanes_from(x[i], at_.high);
      between[i] = lanes_from(x[i], at_.low) & ~above;
      if (left < kWidth) between[i] &= left > 0 ? (1u << left) - 1 : 0;
      any_above |= above;
      any_between |= between[i];
    }
    if (any_above != 0) {
      VecF weights = splat(0);
      for (int i = 0; i < kVectors; ++i) {
        weights += x[i] >= at_.high ? exp((x[i] - at_.shift) * at_.scale) : splat(0);
      }
      *total += low_double(weights) + high_double(weights);
    }
    if (any_between == 0) return;
    for (int i = 0; i < kVectors; ++i) {
      const auto inside = (x[i] >= at_.low) & (x[i] < at_.high);
      least_ = min(inside ? x[i] : splat(__builtin_inff()), least_);
      most_ = max(inside ? x[i] : splat(-__builtin_inff()), most_);
      if (found_ < near_.room) append_lanes(between[i], x[i], first + i * kWidth, near_, found_);
      found_ += __builtin_popcount(between[i]);
    }
  }

  std::int64_t found() const { return found_; }
  SamplingFound result() const { return {found_, -max_lane(-least_), max_lane(most_)}; }

 private:
  const SamplingSplit at_;
  const SamplingNear near_;
  std::int64_t found_ = 0;
  VecF least_ = splat(__builtin_inff()), most_ = splat(-__builtin_inff());
};

SamplingFound split(const float* logits, const float* maxima, std::int64_t n, const SamplingSplit& at, double* sums,
                    std::int32_t* counts, const SamplingNear& near) {
  Splitter splitter(at, near);
  for (std::int64_t begin = 0; begin < n; begin += kSamplingSpan) {
    const std::int64_t end = n - begin < kSamplingSpan ? n : begin + kSamplingSpan, before = splitter.found();
    VecD total = {};
    for (std::int64_t first = begin; first < end; first += kSamplingBlock) {
      const std::int64_t count = end - first < kSamplingBlock ? end - first : kSamplingBlock;
      if (*maxima++ >= at.low) splitter.block(logits, first, count, &total);
    }
    *sums++ = sum(total);
    *counts++ = static_cast<std::int32_t>(splitter.found() - before);
  }
  return splitter.result();
}

void keep_until(const float* logits, const std::int32_t* tokens, std::int64_t n, float logit, std::int32_t token,
                float* weights) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    VecI ids;
    __builtin_memcpy(&ids, tokens + i, sizeof ids);
    const VecF x = load(logits + i);
    const auto kept = (x > logit) | ((x == logit) & (ids <= token));
    store(weights + i, kept ? load(weights + i) : splat(0));
  }
  for (; i < n; ++i) {
    if (logits[i] < logit || (logits[i] == logit && tokens[i] > token)) weights[i] = 0;
  }
}

}  // namespace

const SamplingKernels sampling_kernels = {block_maxima, block_exp_sums, block_exp_sums_twice,
                                          exp_weights,  split,          keep_until};

}  // namespace tempora::TEMPORA_ISA
