// What the log-prob head does to rows of logits between the matrix products.
#pragma once

#include "kernels.h"

namespace tempora {

// Log-probs are kept in 16 bits without a sign: 6 of the exponent, from 2^-32 on, and 10 of the fraction, where bf16
// has
// 7. So a log-prob of -8 to -16 is off by 0.004 at most. The code -1 is NaN.
constexpr std::uint32_t kKeptBias = 95u << 23;  // the bits of 2^-32
constexpr int kKeptShift = 13;
constexpr std::uint32_t kKeptNan = 0xFFFF;

struct HeadKernels {
  // (largest, Σ exp(x - largest)) of what was seen so far, brought up to date with n > 0 more logits.
  void (*add_to_log_sum)(const float* logits, std::int64_t n, float* largest, double* exp_sum);
  // to = logits - reference, at most 0, as kept log-probs
  void (*keep)(const float* logits, float reference, std::uint16_t* to, std::int64_t n);
  // to = bf16(x)
  void (*round)(const float* x, std::uint16_t* to, std::int64_t n);
  // d_logits = scale · exp(logits - log_sum); first index the type of logits, where bf16 stands for kept log-probs,
  // second that of d_logits.
  void (*scaled_exp[2][2])(const void* logits, float log_sum, float scale, void* d_logits, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(HeadKernels, head_kernels)

}  // namespace tempora
