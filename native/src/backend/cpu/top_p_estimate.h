// Where the least likely token of the top p should lie, by a sample of the row.
#pragma once

#include <cstdint>

#include "kernels/sampling.h"

namespace tempora {

constexpr std::int64_t kMostSampled = 4096;
static_assert(kMostSampled % kSampledOfGroup == 0, "whole groups' samples fill it at most");

// Logits in [low, high).
struct LogitRange {
  float low, high;
};

// A part of a row: `size` of its logits and their weights; `share` of the row's.
struct SampledLogits {
  const float* logits;
  const float* weights;
  std::int64_t size;
  double share;
};

// The logits from `lowest` up between which the token should lie past which tokens weigh `rest` in all: three standard
// deviations of the sample's estimate to each side. Everything from `lowest` up where the sample has too few.
LogitRange estimate_top_p(const SamplingKernels& kernels, const SampledLogits& sample, float lowest, double rest);

}  // namespace tempora
