// The operations of backend.h as one would write them on paper: f64, row-major vectors, no care for speed. Gradients
// are not written here: tests take them by finite differences of these functions.
#pragma once

#include <cstdint>
#include <vector>

namespace tempora::test::reference {

using Values = std::vector<double>;

// op(a) [m,k] · op(b) [k,n]
Values matmul(const Values& a, bool transpose_a, const Values& b, bool transpose_b, std::int64_t m, std::int64_t n,
              std::int64_t k);

// Each row of `cols` values over its root mean square, times weight.
Values rms_norm(const Values& x, const Values& weight, double eps, std::int64_t cols);
Values rstd(const Values& x, double eps, std::int64_t cols);

// Hugging Face's rotate_half. positions [T], frequencies [C/2].
Values rope(const Values& x, std::int64_t cols, int head_dim, const std::vector<std::int32_t>& positions,
            const Values& frequencies, bool inverse);

Values swiglu(const Values& gate, const Values& up);

// log softmax of each row.
Values log_softmax(const Values& logits, std::int64_t cols);
// lse of each row.
Values log_sum_exp(const Values& logits, std::int64_t cols);

struct AdamW {
  double learning_rate, beta1, beta2, epsilon, weight_decay, gradient_scale;
  std::int64_t step;
};
// torch.optim.AdamW
void adamw(const AdamW& options, const Values& gradient, Values& weight, Values& first, Values& second);

// The probabilities that are sampled from: temperature, then top_k, then top_p over what is left.
Values sampling_distribution(const Values& logits, double temperature, int top_k, double top_p);

}  // namespace tempora::test::reference
