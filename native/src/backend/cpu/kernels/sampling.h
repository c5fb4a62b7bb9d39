// Passes over a row of logits, in blocks of kSamplingBlock.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr std::int64_t kSamplingBlock = 64;

// Blocks are summed up in spans of so many logits where tokens of some blocks are left out.
constexpr std::int64_t kSamplingSpan = 1024;

// A row, the largest logit of each block, and the weights of its logits, which have kSamplingBlock elements more.
struct SamplingRow {
  const float* logits;
  const float* maxima;
  const float* weights;
  std::int64_t size;
};

// Logits in a range, their weights and their indices, ascending. Whole vectors are written: the arrays have
// kSamplingSlack elements more than `room`, and what lies behind the last may be overwritten.
struct SamplingNear {
  float* logits;
  float* weights;
  std::int32_t* tokens;
  std::int64_t room;
};

constexpr std::int64_t kSamplingSlack = 16;

struct SamplingFound {
  std::int64_t count;  // with those that had no room
  float least, most;
};

struct SamplingBins {
  float from, scale, least, offset;
  std::int32_t most;
};

struct SamplingKernels {
  // The largest of each block; a NaN may hide.
  void (*block_maxima)(const float* logits, std::int64_t n, float* maxima);
  // Σ exp((x - shift) · scale) of each block; NaN where there is one. The exponentials themselves into `weights` unless
  // it is null; it has kSamplingBlock elements more than the row.
  void (*block_exp_sums)(const float* logits, std::int64_t n, float shift, float scale, float* sums, float* weights);
  // The same with scale 1 into `plain` and with `scale` into `scaled` and `weights`, in one pass.
  void (*block_exp_sums_twice)(const float* logits, std::int64_t n, float shift, float scale, float* plain,
                               float* scaled, float* weights);
  // weights = exp((x - shift) · scale)
  void (*exp_weights)(const float* logits, std::int64_t n, float shift, float scale, float* weights);
  // bins = max((x - from) · scale, least) + offset without its fraction, at most `most`; least + offset is not
  // negative.
  void (*bins)(const float* logits, std::int64_t n, const SamplingBins& of, std::int32_t* bins);
  // Σ weight of the logits of each span that reach `high`; those in [low, high) into `near`, and how many they are in
  // each span. Blocks whose maxima lie below `low` are passed over.
  SamplingFound (*split)(const SamplingRow& row, float low, float high, double* sums, std::int32_t* counts,
                         const SamplingNear& near);
  // Weights of tokens that come after (logit, token) in order of likelihood become 0.
  void (*keep_until)(const float* logits, const std::int32_t* tokens, std::int64_t n, float logit, std::int32_t token,
                     float* weights);
};

TEMPORA_DECLARE_KERNELS(SamplingKernels, sampling_kernels)

}  // namespace tempora
