// SmolLM2-135M's shape with random weights, and forests for it.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace tempora {

// In bf16, all weights but norms within ±0.05. `final_norm` is what the last norm scales by: the larger, the more
// peaked the logits.
std::unique_ptr<Engine> small_engine(int threads, float final_norm);

// Trees of a prompt of 128 tokens with `answers` nodes of 128.
Forest small_forest(int trees, int answers);

// Samples of one prompt of 128 tokens, all rows at once; how tokens are drawn and when rows end is the caller's.
GenerationRequest small_request(int samples);

}  // namespace tempora
