// AdamW over a range of elements.
#pragma once

#include "../../adamw.h"
#include "kernels.h"

namespace tempora {

struct AdamWKernels {
  // Elements [begin, end) of weight and gradient, and the moments from `begin` on; begin is a multiple of 64. f32 and
  // bf16 weights.
  void (*update_f32)(float* weight, const float* gradient, float* first, float* second, const AdamWScalars& scalars,
                     std::int64_t begin, std::int64_t end);
  // Rounded stochastically: element e adds to the 16 bits that are dropped the 16 bits number e % 4 of
  // combine_key(rounding_key, e / 4), and truncates.
  void (*update_bf16)(std::uint16_t* weight, const float* gradient, float* first, float* second,
                      const AdamWScalars& scalars, std::int64_t begin, std::int64_t end);
};

TEMPORA_DECLARE_KERNELS(AdamWKernels, adamw_kernels)

}  // namespace tempora
