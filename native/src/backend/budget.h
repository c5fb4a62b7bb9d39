// What a backend wants of the engine's loops.
#pragma once

#include <cstdint>

namespace tempora {

// How much a backend is given at once: more takes more memory, less leaves a wide device idle. Of log-probs and rows of
// a generation none depends on it; gradients are summed chunk by chunk of `kept_logits`.
struct Budget {
  std::int64_t prefill_rows = 512;  // prompt tokens of a pass in generation
  // Keys that those see, all together. A backend may keep a part of a result for some keys of each.
  std::int64_t prefill_keys = std::int64_t{1} << 62;
  std::int64_t decoded_logits = std::int64_t{64} << 20;  // bytes of logits f32 that tokens are chosen from
  // Bytes of logits kept between the head's forward and backward pass: whole trees; beyond the second number a tree's
  // are computed twice.
  std::int64_t kept_logits = std::int64_t{64} << 20;
  std::int64_t largest_kept_logits = std::int64_t{512} << 20;
  // Where that is of several chunks, each one's forward pass is queued before the loss of the one before is computed: a
  // device works on it while the host does. Two chunks' logits are kept at once then.
  bool next_chunk_first = false;
  // Passes of a generation that are asked for before the results of the first are waited for: none where operations are
  // done when they are asked for.
  std::int64_t passes_ahead = 0;
};

}  // namespace tempora
