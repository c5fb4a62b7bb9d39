#include "adamw.h"

#include <cmath>

#include "backend.h"

namespace tempora {

AdamWScalars adamw_scalars(const AdamWTensor& tensor, const AdamWOptions& options) {
  const auto step = static_cast<double>(options.step);
  AdamWScalars scalars;
  scalars.keep = static_cast<float>(1 - options.learning_rate * tensor.weight_decay);
  scalars.gradient_scale = static_cast<float>(options.gradient_scale);
  scalars.beta2 = static_cast<float>(options.beta2);
  scalars.one_minus_beta1 = static_cast<float>(1 - options.beta1);
  scalars.one_minus_beta2 = static_cast<float>(1 - options.beta2);
  scalars.step_size = static_cast<float>(options.learning_rate / (1 - std::pow(options.beta1, step)));
  scalars.second_root_correction = static_cast<float>(std::sqrt(1 - std::pow(options.beta2, step)));
  scalars.epsilon = static_cast<float>(options.epsilon);
  scalars.rounding_key = tensor.rounding_key;
  return scalars;
}

void check_adamw(const std::vector<AdamWTensor>& tensors) {
  for (const AdamWTensor& tensor : tensors) {
    require_dense("adamw", {tensor.weight, tensor.gradient});
    const std::int64_t size = tensor.weight.size();
    if (tensor.gradient.dtype != DType::f32 || tensor.gradient.size() != size || tensor.moments->size != size) {
      throw std::logic_error("adamw: the gradient is f32, and all are as large as the weight");
    }
  }
}

}  // namespace tempora
