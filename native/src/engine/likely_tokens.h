// The most likely tokens of a row of logits, for those who ask: on the host, so that it needs no kernel.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend/backend.h"

namespace tempora {

// The k best of each place, best first; among equals the lowest id.
struct LikelyTokens {
  std::vector<std::int32_t> ids;
  std::vector<float> log_probs;
};

// log Σ exp over a row of logits.
double log_sum_exp(const float* logits, std::int64_t vocabulary);

// Appends the `count` best of a row, whose log_sum_exp is `lse`.
void append_likely(const float* logits, std::int64_t vocabulary, double lse, int count, LikelyTokens& into);

// Rows of device logits f32 [M,V].
std::vector<float> logits_on_host(Backend& backend, const Matrix& logits);

}  // namespace tempora
