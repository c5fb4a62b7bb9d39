// From the residual stream of decoding rows to their next tokens: the final norm, logits, and a random number a row.
#pragma once

#include <cstdint>
#include <vector>

#include "engine_impl.h"
#include "likely_tokens.h"

namespace tempora {

// What a sample's random numbers are keyed by, beside the seed: nothing of what else is drawn.
struct SampleKey {
  std::uint64_t prompt = 0;
  std::int32_t sample = 0;
  std::int32_t position = 0;  // new tokens before this one
};

// [0, 1)
double uniform_of(std::uint64_t seed, const SampleKey& key);

// What a row asks of the sampler.
struct SampledRow {
  SamplingOptions options;
  std::uint64_t seed = 0;
  SampleKey key;
  int likely = 0;  // how many of the most likely tokens are told
};

struct SampledTokens {
  std::vector<std::int32_t> tokens;  // [M]
  std::vector<float> log_probs;      // [M] under the model itself: temperature 1, nothing cut off
  LikelyTokens likely;               // those of a row that asks, row after row

  // Throws std::domain_error where logits were not finite.
  void set(const std::uint8_t* token_bytes, const std::uint8_t* log_prob_bytes, std::size_t rows);
};

// [M] each, on the device: the rows' random numbers, and where their results go.
struct SampleBuffers {
  const double* uniforms;
  std::int32_t* tokens;  // -1 where the logits are not finite
  float* log_probs;
};

// x f32 [M,D]. Logits exist for some rows at a time. Where `likely` is not null, rows are told the tokens they ask for.
void sample_rows(Engine::Impl& impl, const Matrix& x, const std::vector<SampledRow>& rows, const SampleBuffers& buffers,
                 LikelyTokens* likely);

// The same, waited for.
SampledTokens sample_tokens(Engine::Impl& impl, const Matrix& x, const std::vector<SampledRow>& rows);

}  // namespace tempora
