// Passes over a row of logits, in blocks of kSamplingBlock.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr std::int64_t kSamplingBlock = 64;

// So many logits are weighed at once.
constexpr std::int64_t kSamplingGroup = 4 * kSamplingBlock;

// Blocks are summed up in spans of so many logits where tokens of some blocks are left out.
constexpr std::int64_t kSamplingSpan = 1024;

// A logit weighs exp((logit - shift) / temperature) = 2^((logit - shift) · factor).
struct SamplingScale {
  float shift, factor;
};

static inline SamplingScale sampling_scale(float shift, float inverse_temperature) {
  return {shift, 1.44269504088896341f * inverse_temperature};
}

// The guess is what weights are counted from unless the largest logit is so far above that they could leave the range
// of numbers. The largest where the guess is no number.
static inline float sampling_shift(float guess, float largest, float inverse_temperature) {
  constexpr float kMostAbove = 40;
  const float above = (largest - guess) * (inverse_temperature > 1 ? inverse_temperature : 1);
  return above <= kMostAbove ? guess : largest;
}

// Of each `every`th group kSampledOfGroup logits, four of each block, and their weights.
constexpr std::int64_t kSampledOfGroup = 16;

struct SamplingSample {
  float* logits;
  float* weights;
  std::int64_t every;
};

// What is written of a row: of each block the largest logit (a NaN may hide), Σ weight by `scale` and, where
// plain_sums is not null, Σ weight by `plain` (NaN where there is one). Where `weights` is not null, the weights by
// `scale` and a sample.
struct SamplingPass {
  SamplingScale plain, scale;
  float* maxima;
  float* plain_sums;
  float* sums;
  float* weights;
  SamplingSample sample;
};

// A row, the largest logit of each block, and the weights of its logits, which have kSamplingBlock elements more.
struct SamplingRow {
  const float* logits;
  const float* maxima;
  const float* weights;
  std::int64_t size;
};

// Vectors that end at a row's last logit may be written whole.
constexpr std::int64_t kSamplingSlack = 16;

struct SamplingRange {
  float least, most;
};

struct SamplingBins {
  float from, scale, least, offset;
  std::int32_t most;
};

struct SamplingKernels {
  // The largest of a few: no far cry from the row's where logits are like each other.
  float (*glimpse)(const float* logits, std::int64_t n);
  // Returns the size of the sample.
  std::int64_t (*weigh)(const float* logits, std::int64_t n, const SamplingPass& pass);
  void (*weights)(const float* logits, std::int64_t n, SamplingScale scale, float* weights);
  double (*total)(const float* sums, std::int64_t n);
  // Of logits without NaN; infinity and -infinity of none.
  SamplingRange (*range)(const float* logits, std::int64_t n);
  // bins = max((x - from) · scale, least) + offset without its fraction, at most `most`; least + offset is not
  // negative.
  void (*bins)(const float* logits, std::int64_t n, const SamplingBins& of, std::int32_t* bins);
  // Σ weight of the logits of each span that reach `high`; those in [low, high), in order, into `near`, which has
  // kSamplingSlack elements more than the row, and how many they are in each span. Blocks whose maxima lie below `low`
  // are passed over. Returns how many are in `near`.
  std::int64_t (*split)(const SamplingRow& row, float low, float high, double* sums, std::int32_t* counts, float* near);
  // Weights of logits that come after the one of index `last`, which is `logit`, in order of likelihood become 0. The
  // first has the index `first`. Returns Σ of the others.
  double (*keep_until)(const float* logits, std::int64_t n, std::int64_t first, float logit, std::int64_t last,
                       float* weights);
};

TEMPORA_DECLARE_KERNELS(SamplingKernels, sampling_kernels)

}  // namespace tempora
