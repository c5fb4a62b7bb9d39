// GGUF's blocks on the host, where weights come from and go to.
#pragma once

#include <vector>

#include "gguf_blocks.h"

namespace tempora {

// Whether all scales of the blocks are finite: then so are all numbers.
bool gguf_finite(WeightFormat format, const std::uint8_t* blocks, std::size_t bytes);
std::vector<float> gguf_dequantised(WeightFormat format, const std::uint8_t* blocks, std::int64_t n);

}  // namespace tempora
