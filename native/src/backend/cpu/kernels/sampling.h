// Passes over a row of logits, in blocks of kSamplingBlock.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr std::int64_t kSamplingBlock = 64;

struct SamplingKernels {
  // The largest of each block; a NaN may hide.
  void (*block_maxima)(const float* logits, std::int64_t n, float* maxima);
  // Σ exp((x - shift) · scale) of each block; NaN where there is one.
  void (*block_exp_sums)(const float* logits, std::int64_t n, float shift, float scale, float* sums);
  // weights = exp((x - shift) · scale)
  void (*exp_weights)(const float* logits, std::int64_t n, float shift, float scale, float* weights);
};

TEMPORA_DECLARE_KERNELS(SamplingKernels, sampling_kernels)

}  // namespace tempora
