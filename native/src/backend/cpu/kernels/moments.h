// Moments in fewer bits, a block of at most kMomentsBlock numbers at a time.
#pragma once

#include "../../dynamic_map.h"
#include "kernels.h"

namespace tempora {

struct MomentsKernels {
  // to f32 [n] = the codes' values times scale.
  void (*widen_block)(const std::uint8_t* codes, const DynamicMap& map, float scale, float* to, std::int64_t n);
  // Returns the largest magnitude, which the codes' values are to be multiplied by.
  float (*narrow_block)(const float* values, const DynamicMap& map, std::uint8_t* codes, std::int64_t n);
  // bf16, rounded stochastically by the 16 bits of elements `element` (a multiple of 4) and on.
  void (*narrow_bf16)(const float* values, std::uint64_t key, std::int64_t element, std::uint16_t* to, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(MomentsKernels, moments_kernels)

}  // namespace tempora
