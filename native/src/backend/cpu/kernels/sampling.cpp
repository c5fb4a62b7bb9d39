#include "sampling.h"

#include "exponentials.h"
#include "sampling_split.h"

namespace tempora::TEMPORA_ISA {
namespace {

constexpr int kBlocks = kSamplingGroup / kSamplingBlock;
static_assert(kBlocks == 4 && kSampledOfGroup == 4 * kBlocks);

// Each four lanes of a and b: lanes 0 and 1 alternating, or 2 and 3.
template <int kFirst, int... kLane>
inline VecF alternate(VecF a, VecF b, std::integer_sequence<int, kLane...>) {
  return shuffle<(kLane / 4 * 4 + kFirst + kLane % 4 / 2 + kLane % 2 * kWidth)...>(a, b);
}

// Each four lanes of a and b: the first halves behind each other, or the second ones.
template <int kFirst, int... kLane>
inline VecF halves(VecF a, VecF b, std::integer_sequence<int, kLane...>) {
  return shuffle<(kLane / 4 * 4 + kFirst + kLane % 2 + kLane % 4 / 2 * kWidth)...>(a, b);
}

// Joins all lanes of each of four vectors in a fixed order.
template <typename Join>
inline void fold_four(const VecF (&v)[4], Join join, float* to) {
  constexpr auto kLanes = std::make_integer_sequence<int, kWidth>();
  const VecF a = join(alternate<0>(v[0], v[1], kLanes), alternate<2>(v[0], v[1], kLanes));
  const VecF b = join(alternate<0>(v[2], v[3], kLanes), alternate<2>(v[2], v[3], kLanes));
  VecF all = join(halves<0>(a, b, kLanes), halves<2>(a, b, kLanes));
  if constexpr (kWidth > 8) all = join(all, lanes_behind<8>(all, kLanes));
  if constexpr (kWidth > 4) all = join(all, lanes_behind<4>(all, kLanes));
  __builtin_memcpy(to, &all, 4 * sizeof *to);
}

inline VecF weight_of(VecF logits, SamplingScale scale) { return quick_exp2((logits - scale.shift) * scale.factor); }

// A group's part of what a SamplingPass writes; `sampled` is its place in the sample, or -1.
template <bool kTwice, bool kKeep>
inline void weigh_group(const float* logits, const SamplingPass& pass, std::int64_t block, float* weights,
                        std::int64_t sampled) {
  const SamplingScale scale = pass.scale, plain_scale = pass.plain;
  VecF most[kBlocks], total[kBlocks], plain[kBlocks];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    most[b] = splat(-__builtin_inff());
    total[b] = plain[b] = splat(0);
    for (int i = 0; i < kSamplingBlock; i += kWidth) {
      const VecF x = load(logits + b * kSamplingBlock + i), weight = weight_of(x, scale);
      most[b] = max(x, most[b]);
      total[b] += weight;
      if constexpr (kTwice) plain[b] += weight_of(x, plain_scale);
      if constexpr (kKeep) store(weights + b * kSamplingBlock + i, weight);
    }
  }
  fold_four(
      most, [](VecF a, VecF b) { return max(a, b); }, pass.maxima + block);
  fold_four(
      total, [](VecF a, VecF b) { return a + b; }, pass.sums + block);
  if constexpr (kTwice)
    fold_four(
        plain, [](VecF a, VecF b) { return a + b; }, pass.plain_sums + block);
  if (!kKeep || sampled < 0) return;
  for (int b = 0; b < kBlocks; ++b) {
    __builtin_memcpy(pass.sample.logits + sampled + 4 * b, logits + b * kSamplingBlock, 4 * sizeof *logits);
    __builtin_memcpy(pass.sample.weights + sampled + 4 * b, weights + b * kSamplingBlock, 4 * sizeof *weights);
  }
}

// The last group, filled up by logits without weight.
template <bool kTwice, bool kKeep>
void weigh_part(const float* logits, std::int64_t count, const SamplingPass& pass, std::int64_t block, float* to) {
  float filled[kSamplingGroup], weights[kSamplingGroup], results[3][kBlocks];
  for (std::int64_t i = 0; i < kSamplingGroup; ++i) filled[i] = i < count ? logits[i] : -__builtin_inff();
  SamplingPass part = pass;
  part.maxima = results[0];
  part.sums = results[1];
  part.plain_sums = results[2];
  weigh_group<kTwice, kKeep>(filled, part, 0, weights, -1);
  for (std::int64_t b = 0; b * kSamplingBlock < count; ++b) {
    pass.maxima[block + b] = results[0][b];
    pass.sums[block + b] = results[1][b];
    if constexpr (kTwice) pass.plain_sums[block + b] = results[2][b];
  }
  if constexpr (kKeep) __builtin_memcpy(to, weights, static_cast<std::size_t>(count) * sizeof *to);
}

template <bool kTwice, bool kKeep>
std::int64_t weigh_by(const float* logits, std::int64_t n, const SamplingPass& pass) {
  std::int64_t at = 0, sampled = 0;
  for (std::int64_t group = 0; at + kSamplingGroup <= n; at += kSamplingGroup, ++group) {
    const bool sample = kKeep && group % pass.sample.every == 0;
    weigh_group<kTwice, kKeep>(logits + at, pass, at / kSamplingBlock, kKeep ? pass.weights + at : nullptr,
                               sample ? sampled : -1);
    sampled += sample ? kSampledOfGroup : 0;
  }
  if (at < n) {
    weigh_part<kTwice, kKeep>(logits + at, n - at, pass, at / kSamplingBlock, kKeep ? pass.weights + at : nullptr);
  }
  return sampled;
}

std::int64_t weigh(const float* logits, std::int64_t n, const SamplingPass& pass) {
  if (pass.weights == nullptr) {
    return (pass.plain_sums == nullptr ? weigh_by<false, false> : weigh_by<true, false>)(logits, n, pass);
  }
  return (pass.plain_sums == nullptr ? weigh_by<false, true> : weigh_by<true, true>)(logits, n, pass);
}

double total(const float* sums, std::int64_t n) {
  VecD total = {};
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) total += low_double(load(sums + i)) + high_double(load(sums + i));
  double rest = 0;
  for (; i < n; ++i) rest += static_cast<double>(sums[i]);
  return sum(total) + rest;
}

SamplingRange range(const float* logits, std::int64_t n) {
  VecF least = splat(__builtin_inff()), most = splat(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    least = min(load(logits + i), least);
    most = max(load(logits + i), most);
  }
  if (i < n) {
    least = min(load_part(logits + i, n - i, __builtin_inff()), least);
    most = max(load_part(logits + i, n - i, -__builtin_inff()), most);
  }
  return {-max_lane(-least), max_lane(most)};
}

float glimpse(const float* logits, std::int64_t n) {
  constexpr std::int64_t kVectors = 16;
  VecF most = splat(-__builtin_inff());
  if (n < kWidth) return range(logits, n).most;
  for (std::int64_t i = 0; i < kVectors; ++i) most = max(load(logits + i * (n - kWidth) / (kVectors - 1)), most);
  return max_lane(most);
}

void weights(const float* logits, std::int64_t n, SamplingScale scale, float* weights) {
  for_vectors(n, [=](auto load, auto store) { store(weights, weight_of(load(logits), scale)); });
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

std::int64_t split(const SamplingRow& row, float low, float high, double* sums, std::int32_t* counts, float* near) {
  Splitter splitter(low, high, near);
  const float* maxima = row.maxima;
  const std::int64_t n = row.size;
  for (std::int64_t begin = 0; begin < n; begin += kSamplingSpan) {
    const std::int64_t end = n - begin < kSamplingSpan ? n : begin + kSamplingSpan, before = splitter.found();
    for (std::int64_t first = begin; first < end; first += kSamplingBlock) {
      const float most = *maxima++;
      if (!(most >= low)) continue;
      const float* logits = row.logits + first;
      float filled[kSamplingBlock];
      if (end - first < kSamplingBlock) {
        // NaN is in no range.
        for (std::int64_t i = 0; i < kSamplingBlock; ++i) filled[i] = first + i < end ? logits[i] : __builtin_nanf("");
        logits = filled;
      }
      splitter.block(logits, row.weights + first, most);
    }
    *sums++ = splitter.take_total();
    *counts++ = static_cast<std::int32_t>(splitter.found() - before);
  }
  return splitter.found();
}

template <int... kLane>
inline VecI counted(std::integer_sequence<int, kLane...>) {
  return VecI{kLane...};
}

double keep_until(const float* logits, std::int64_t n, std::int64_t first, float logit, std::int64_t last,
                  float* weights) {
  const VecI lanes = counted(std::make_integer_sequence<int, kWidth>());
  VecD total = {};
  const auto keep = [&](std::int64_t i, VecF x, VecF weight) {
    const auto kept = (x > logit) | ((x == logit) & (lanes <= static_cast<std::int32_t>(last - first - i)));
    weight = kept ? weight : splat(0);
    total += low_double(weight) + high_double(weight);
    return weight;
  };
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(weights + i, keep(i, load(logits + i), load(weights + i)));
  if (i < n) store_part(weights + i, keep(i, load_part(logits + i, n - i), load_part(weights + i, n - i)), n - i);
  return sum(total);
}

}  // namespace

const SamplingKernels sampling_kernels = {glimpse, weigh, weights, total, range, bins, split, keep_until};

}  // namespace tempora::TEMPORA_ISA
