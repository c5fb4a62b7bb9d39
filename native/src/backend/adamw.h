// AdamW as all backends compute it:
//   g = gradient_scale · gradient,  m += (g - m) · one_minus_beta1,  v = v · beta2 + g² · one_minus_beta2,
//   weight = weight · keep - step_size · m / (sqrt(v) / second_root_correction + epsilon),
// which is torch.optim.AdamW: decay first, then the step.
#pragma once

#include <cstdint>
#include <vector>

namespace tempora {

struct AdamWOptions;
struct AdamWTensor;

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

// Differences are taken in f64: 1 - 0.999f is off by a part in 80,000.
AdamWScalars adamw_scalars(const AdamWTensor& tensor, const AdamWOptions& options);

// Throws std::logic_error unless gradient and moments are as large as the weight, and all rows are adjacent.
void check_adamw(const std::vector<AdamWTensor>& tensors);

}  // namespace tempora
