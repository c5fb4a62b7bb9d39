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

// Calls body(offset, vector) for a block's vectors; the last may be filled up by lanes without weight.
template <typename Body>
void for_block(const float* logits, std::int64_t count, Body body) {
  std::int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) body(i, load(logits + i));
  if (i < count) body(i, load_part(logits + i, count - i, -__builtin_inff()));
}

template <bool keep>
void exp_sums(const float* logits, std::int64_t n, float shift, float scale, float* sums, float* weights) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock, weights += keep ? kSamplingBlock : 0) {
    VecF total = splat(0);
    for_block(logits, n < kSamplingBlock ? n : kSamplingBlock, [&](std::int64_t i, VecF x) {
      const VecF weight = exp((x - shift) * scale);
      total += weight;
      if constexpr (keep) store(weights + i, weight);
    });
    *sums++ = sum(total);
  }
}

template <bool keep>
void exp_sums_twice(const float* logits, std::int64_t n, float shift, float scale, float* plain, float* scaled,
                    float* weights) {
  for (; n > 0; n -= kSamplingBlock, logits += kSamplingBlock, weights += keep ? kSamplingBlock : 0) {
    VecF total[2] = {splat(0), splat(0)};
    for_block(logits, n < kSamplingBlock ? n : kSamplingBlock, [&](std::int64_t i, VecF x) {
      const VecF distance = x - shift, weight = exp(distance * scale);
      total[0] += exp(distance);
      total[1] += weight;
      if constexpr (keep) store(weights + i, weight);
    });
    *plain++ = sum(total[0]);
    *scaled++ = sum(total[1]);
  }
}

void block_exp_sums(const float* logits, std::int64_t n, float shift, float scale, float* sums, float* weights) {
  weights == nullptr ? exp_sums<false>(logits, n, shift, scale, sums, weights)
                     : exp_sums<true>(logits, n, shift, scale, sums, weights);
}

void block_exp_sums_twice(const float* logits, std::int64_t n, float shift, float scale, float* plain, float* scaled,
                          float* weights) {
  weights == nullptr ? exp_sums_twice<false>(logits, n, shift, scale, plain, scaled, weights)
                     : exp_sums_twice<true>(logits, n, shift, scale, plain, scaled, weights);
}

void exp_weights(const float* logits, std::int64_t n, float shift, float scale, float* weights) {
  for_vectors(n, [=](auto load, auto store) { store(weights, exp((load(logits) - shift) * scale)); });
}

void bins(const float* logits, std::int64_t n, const SamplingBins& of, std::int32_t* to) {
  const VecF least = splat(of.least);
  const VecI most = of.most - VecI{};
  const auto bins_of = [&](VecF x) {
    const VecI whole = __builtin_convertvector(max((x - of.from) * of.scale, least) + of.offset, VecI);
    return whole < most ? whole : most;
  };
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const VecI whole = bins_of(load(logits + i));
    __builtin_memcpy(to + i, &whole, sizeof whole);
  }
  if (i == n) return;
  const VecI whole = bins_of(load_part(logits + i, n - i, of.from));
  __builtin_memcpy(to + i, &whole, static_cast<std::size_t>(n - i) * sizeof *to);
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

void append_lanes(unsigned lanes, VecF x, VecF weights, std::int64_t first, const SamplingNear& near, std::int64_t at) {
#if defined(__AVX512F__)
  const __m512i ids = _mm512_add_epi32(_mm512_set1_epi32(static_cast<std::int32_t>(first)),
                                       _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const auto mask = static_cast<__mmask16>(lanes);
  _mm512_storeu_ps(near.logits + at, _mm512_maskz_compress_ps(mask, reinterpret_cast<__m512>(x)));
  _mm512_storeu_ps(near.weights + at, _mm512_maskz_compress_ps(mask, reinterpret_cast<__m512>(weights)));
  _mm512_storeu_si512(near.tokens + at, _mm512_maskz_compress_epi32(mask, ids));
#else
  for (; lanes != 0; lanes &= lanes - 1, ++at) {
    const int lane = __builtin_ctz(lanes);
    near.logits[at] = x[lane];
    near.weights[at] = weights[lane];
    near.tokens[at] = static_cast<std::int32_t>(first) + lane;
  }
#endif
}

// One pass of split(). Logits are looked at by blocks, since branches by vectors are hard to foresee.
class Splitter {
 public:
  Splitter(const SamplingRow& row, float low, float high, const SamplingNear& near)
      : row_(row), low_(low), high_(high), near_(near) {}

  // Lanes are summed up in f32 within a block only.
  void block(std::int64_t first, std::int64_t count, VecD* total) {
    constexpr int kVectors = kSamplingBlock / kWidth;
    VecF x[kVectors];
    unsigned above[kVectors], between[kVectors], any_above = 0, any_between = 0;
    for (int i = 0; i < kVectors; ++i) {
      const std::int64_t begin = i * kWidth, left = count - begin;
      x[i] = left >= kWidth ? load(row_.logits + first + begin)
                            : load_part(row_.logits + first + begin, left > 0 ? left : 0, -__builtin_inff());
      above[i] = lanes_from(x[i], high_);
      between[i] = lanes_from(x[i], low_) & ~above[i];
      if (left < kWidth) between[i] &= left > 0 ? (1u << left) - 1 : 0;
      any_above |= above[i];
      any_between |= between[i];
    }
    if (any_above != 0) {
      VecF weights = splat(0);
      for (int i = 0; i < kVectors; ++i) weights += weights_in(above[i], x[i], first + i * kWidth);
      *total += low_double(weights) + high_double(weights);
    }
    if (any_between == 0) return;
    for (int i = 0; i < kVectors; ++i) {
      narrow(between[i], x[i]);
      const std::int64_t begin = first + i * kWidth;
      if (found_ < near_.room) append_lanes(between[i], x[i], weights_at(begin), begin, near_, found_);
      found_ += __builtin_popcount(between[i]);
    }
  }

  std::int64_t found() const { return found_; }
  SamplingFound result() const { return {found_, -max_lane(-least_), max_lane(most_)}; }

 private:
#if defined(__AVX512F__)
  // The lanes are masks already.
  VecF weights_in(unsigned above, VecF, std::int64_t i) const {
    return reinterpret_cast<VecF>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(above), row_.weights + i));
  }
  void narrow(unsigned between, VecF x) {
    const auto mask = static_cast<__mmask16>(between);
    const auto value = reinterpret_cast<__m512>(x), least = reinterpret_cast<__m512>(least_),
               most = reinterpret_cast<__m512>(most_);
    least_ = reinterpret_cast<VecF>(_mm512_mask_min_ps(least, mask, least, value));
    most_ = reinterpret_cast<VecF>(_mm512_mask_max_ps(most, mask, most, value));
  }
#else
  VecF weights_in(unsigned, VecF x, std::int64_t i) const { return x >= high_ ? weights_at(i) : splat(0); }
  void narrow(unsigned, VecF x) {
    const auto inside = (x >= low_) & (x < high_);
    least_ = min(inside ? x : splat(__builtin_inff()), least_);
    most_ = max(inside ? x : splat(-__builtin_inff()), most_);
  }
#endif
  // Behind the row's last there is room for whole vectors.
  VecF weights_at(std::int64_t i) const { return load(row_.weights + i); }

  const SamplingRow row_;
  const float low_, high_;
  const SamplingNear near_;
  std::int64_t found_ = 0;
  VecF least_ = splat(__builtin_inff()), most_ = splat(-__builtin_inff());
};

SamplingFound split(const SamplingRow& row, float low, float high, double* sums, std::int32_t* counts,
                    const SamplingNear& near) {
  Splitter splitter(row, low, high, near);
  const float* maxima = row.maxima;
  const std::int64_t n = row.size;
  for (std::int64_t begin = 0; begin < n; begin += kSamplingSpan) {
    const std::int64_t end = n - begin < kSamplingSpan ? n : begin + kSamplingSpan, before = splitter.found();
    VecD total = {};
    for (std::int64_t first = begin; first < end; first += kSamplingBlock) {
      const std::int64_t count = end - first < kSamplingBlock ? end - first : kSamplingBlock;
      if (*maxima++ >= low) splitter.block(first, count, &total);
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

const SamplingKernels sampling_kernels = {block_maxima, block_exp_sums, block_exp_sums_twice, exp_weights, bins,
                                          split,        keep_until};

}  // namespace tempora::TEMPORA_ISA
