// The dynamic 8-bit data types of Dettmers et al. (2022, 8-bit Optimizers via Block-wise Quantization), as bitsandbytes
// makes them: seven decades below 1, each with twice the fractions of the one below it, beside 0 and 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempora {

// Moments that have a scale in common.
constexpr std::size_t kMomentsBlock = 256;

struct DynamicMap {
  float values[256];     // ascending
  float midpoints[256];  // between a value and the next; infinity behind the last
  // By the upper 16 bits of a float: the code of the lowest number with these bits. No two midpoints lie so close
  // together that a second step would be needed.
  std::uint8_t first_code[65536];

  // The nearest value's code; of two as near the lower one. x in [-1, 1].
  std::uint8_t code_of(float x) const {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    const std::uint8_t code = first_code[bits >> 16];
    return static_cast<std::uint8_t>(code + (x > midpoints[code] ? 1 : 0));
  }
};

const DynamicMap& signed_dynamic_map();    // for m
const DynamicMap& unsigned_dynamic_map();  // for v

}  // namespace tempora
