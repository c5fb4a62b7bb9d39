// From the residual stream of decoding rows to their next tokens: the final norm, logits, and a random number a row.
#pragma once

#include <cstdint>
#include <vector>

#include "engine_impl.h"

namespace tempora {

// What a sample's random numbers are keyed by, beside the seed: nothing of what else is drawn.
struct SampleKey {
  std::uint64_t prompt = 0;
  std::int32_t sample = 0;
  std::int32_t position = 0;  // new tokens before this one
};

// [0, 1)
double uniform_of(std::uint64_t seed, const SampleKey& key);

struct SampledTokens {
  std::vector<std::int32_t> tokens;  // [M]
  std::vector<float> log_probs;      // [M] under the model itself: temperature 1, nothing cut off
};

// x f32 [M,D]. Logits exist for some rows at a time.
SampledTokens sample_tokens(Engine::Impl& impl, const Matrix& x, const GenerationOptions& options,
                            const std::vector<SampleKey>& keys);

}  // namespace tempora
