// How a weight's numbers are stored.
#pragma once

#include <cstdint>

namespace tempora {

// Those of f32 and bf16 can be trained. The others are frozen: nf4 (nf4.h), and the blocks that GGUF files hold
// (gguf_blocks.h).
enum class WeightFormat : std::uint8_t { f32, bf16, nf4, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

// Static: kernels are compiled once for each instruction set, and none may be linked with another's copy.
[[maybe_unused]] static constexpr bool is_plain(WeightFormat format) { return format <= WeightFormat::bf16; }
[[maybe_unused]] static constexpr bool is_gguf(WeightFormat format) { return format >= WeightFormat::q4_0; }

}  // namespace tempora
