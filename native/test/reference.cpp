#include "reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tempora::test::reference {

Values matmul(const Values& a, bool transpose_a, const Values& b, bool transpose_b, std::int64_t m, std::int64_t n,
              std::int64_t k) {
  Values c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l) {
        sum += (transpose_a ? a[l * m + i] : a[i * k + l]) * (transpose_b ? b[j * k + l] : b[l * n + j]);
      }
      c[i * n + j] = sum;
    }
  }
  return c;
}

Values rstd(const Values& x, double eps, std::int64_t cols) {
  Values result;
  for (std::size_t row = 0; row < x.size(); row += cols) {
    double squares = 0;
    for (std::int64_t i = 0; i < cols; ++i) squares += x[row + i] * x[row + i];
    result.push_back(1 / std::sqrt(squares / static_cast<double>(cols) + eps));
  }
  return result;
}

Values rms_norm(const Values& x, const Values& weight, double eps, std::int64_t cols) {
  const Values scales = rstd(x, eps, cols);
  Values y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scales[i / cols] * weight[i % cols];
  return y;
}

Values rope(const Values& x, std::int64_t cols, int head_dim, const std::vector<std::int32_t>& positions,
            const Values& frequencies, bool inverse) {
  Values y(x.size());
  const int half = head_dim / 2;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const int dimension = static_cast<int>(i % head_dim);
    const double angle = positions[i / cols] * frequencies[dimension % half] * (inverse ? -1 : 1);
    const double partner = dimension < half ? -x[i + half] : x[i - half];
    y[i] = x[i] * std::cos(angle) + partner * std::sin(angle);
  }
  return y;
}

Values swiglu(const Values& gate, const Values& up) {
  Values out(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) out[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  return out;
}

Values log_sum_exp(const Values& logits, std::int64_t cols) {
  Values result;
  for (std::size_t row = 0; row < logits.size(); row += cols) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row);
    const double largest = *std::max_element(begin, begin + cols);
    double sum = 0;
    for (std::int64_t i = 0; i < cols; ++i) sum += std::exp(logits[row + i] - largest);
    result.push_back(largest + std::log(sum));
  }
  return result;
}

Values log_softmax(const Values& logits, std::int64_t cols) {
  const Values lse = log_sum_exp(logits, cols);
  Values result(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) result[i] = logits[i] - lse[i / cols];
  return result;
}

void adamw(const AdamW& o, const Values& gradient, Values& weight, Values& first, Values& second) {
  const double step = static_cast<double>(o.step);
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const double g = gradient[i] * o.gradient_scale;
    weight[i] *= 1 - o.learning_rate * o.weight_decay;
    first[i] = o.beta1 * first[i] + (1 - o.beta1) * g;
    second[i] = o.beta2 * second[i] + (1 - o.beta2) * g * g;
    const double corrected = second[i] / (1 - std::pow(o.beta2, step));
    weight[i] -= o.learning_rate * first[i] / (1 - std::pow(o.beta1, step)) / (std::sqrt(corrected) + o.epsilon);
  }
}

Values sampling_distribution(const Values& logits, double temperature, int top_k, double top_p) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  Values probabilities(logits.size());
  if (temperature == 0) {
    probabilities[order[0]] = 1;
    return probabilities;
  }
  if (top_k > 0 && static_cast<std::size_t>(top_k) < order.size()) order.resize(static_cast<std::size_t>(top_k));
  Values weights;
  for (const std::size_t token : order) weights.push_back(std::exp((logits[token] - logits[order[0]]) / temperature));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double mass = 0;
  std::size_t kept = 0;
  do {
    mass += weights[kept++];
  } while (kept < order.size() && (top_p >= 1 || mass < top_p * total));
  for (std::size_t i = 0; i < kept; ++i) probabilities[order[i]] = weights[i] / mass;
  return probabilities;
}

}  // namespace tempora::test::reference
