#include "likely_tokens.h"

#include <algorithm>
#include <cmath>

namespace tempora {

double log_sum_exp(const float* logits, std::int64_t vocabulary) {
  const float most = *std::max_element(logits, logits + vocabulary);
  double sum = 0;
  for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(logits[i] - most);
  return static_cast<double>(most) + std::log(sum);
}

void append_likely(const float* logits, std::int64_t vocabulary, double lse, int count, LikelyTokens& into) {
  // Few are wanted of many: one pass, with a list that is seldom changed.
  std::vector<std::int32_t> best;
  for (std::int32_t token = 0; token < vocabulary; ++token) {
    const bool full = best.size() == static_cast<std::size_t>(count);
    if (full && !(logits[token] > logits[best.back()])) continue;
    if (full) best.pop_back();
    best.insert(std::upper_bound(best.begin(), best.end(), token,
                                 [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; }),
                token);
  }
  for (const std::int32_t token : best) {
    into.ids.push_back(token);
    into.log_probs.push_back(static_cast<float>(static_cast<double>(logits[token]) - lse));
  }
}

std::vector<float> logits_on_host(Backend& backend, const Matrix& logits) {
  std::vector<float> host(static_cast<std::size_t>(logits.size()));
  backend.copy_out(host.data(), logits.data, logits.bytes());
  return host;
}

}  // namespace tempora
