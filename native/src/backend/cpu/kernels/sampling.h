// Passes over a row of logits, in blocks of kSamplingBlock.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr std::int64_t kSamplingBlock = 64;

struct SamplingSplit {
  float low, high, shift, scale;
};

struct SamplingKernels {
  // The largest of each block; a NaN may hide.
  void (*block_maxima)(const float* logits, std::int64_t n, float* maxima);
  // Σ exp((x - shift) · scale) of each block; NaN where there is one.
  void (*block_exp_sums)(const float* logits, std::int64_t n, float shift, float scale, float* sums);
  // weights = exp((x - shift) · scale)
  void (*exp_weights)(const float* logits, std::int64_t n, float shift, float scale, float* weights);
  // Σ exp((x - shift) · scale) of the logits of each block that reach `high`, and the indices of those in [low, high),
  // ascending, with room for n; returns how many these are. Blocks whose maxima lie below `low` are passed over.
  std::int64_t (*split)(const float* logits, const float* maxima, std::int64_t n, const SamplingSplit& at, double* sums,
                        std::int32_t* between);
};

TEMPORA_DECLARE_KERNELS(SamplingKernels, sampling_kernels)

}  // namespace tempora
