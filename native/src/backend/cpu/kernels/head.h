// What the log-prob head does to rows of logits between the matrix products.
#pragma once

#include "kernels.h"

namespace tempora {

struct HeadKernels {
  // (largest, Σ exp(x - largest)) of what was seen so far, brought up to date with n > 0 more logits.
  void (*add_to_log_sum)(const float* logits, std::int64_t n, float* largest, double* exp_sum);
  // to = bf16(logits - reference)
  void (*keep)(const float* logits, float reference, std::uint16_t* to, std::int64_t n);
  // x += shift, rounded again
  void (*shift)(std::uint16_t* x, float shift, std::int64_t n);
  // d_logits = scale · exp(logits - log_sum); first index the type of logits, second that of d_logits.
  void (*scaled_exp[2][2])(const void* logits, float log_sum, float scale, void* d_logits, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(HeadKernels, head_kernels)

}  // namespace tempora
