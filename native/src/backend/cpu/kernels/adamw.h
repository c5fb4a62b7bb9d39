// AdamW over a range of elements.
#pragma once

#include "kernels.h"

namespace tempora {

struct AdamWScalars {
  float keep = 1;  // 1 - learning_rate · weight_decay
  float gradient_scale = 1;
  float beta2 = 0;
  float one_minus_beta1 = 0;
  float one_minus_beta2 = 0;
  float step_size = 0;               // learning_rate / (1 - beta1^step)
  float second_root_correction = 1;  // sqrt(1 - beta2^step)
  float epsilon = 0;
  std::uint64_t rounding_key = 0;
};

struct AdamWKernels {
  // Elements [begin, end); begin is a multiple of 64. f32 and bf16 weights.
  void (*update_f32)(float* weight, const float* gradient, float* first, float* second, const AdamWScalars& scalars,
                     std::int64_t begin, std::int64_t end);
  // Rounded stochastically: element e adds to the 16 bits that are dropped the 16 bits number e % 4 of
  // combine_key(rounding_key, e / 4), and truncates.
  void (*update_bf16)(std::uint16_t* weight, const float* gradient, float* first, float* second,
                      const AdamWScalars& scalars, std::int64_t begin, std::int64_t end);
};

TEMPORA_DECLARE_KERNELS(AdamWKernels, adamw_kernels)

}  // namespace tempora
