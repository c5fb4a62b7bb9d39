// Counter-based random numbers: a function of a key and a counter, so that what is drawn never depends on what else is.
#pragma once

#include <cstdint>

namespace tempora {

// The functions are static: kernels are compiled once for each instruction set, and none may be linked with another's
// copy.

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that mixes well.
[[maybe_unused]] static constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

[[maybe_unused]] static constexpr std::uint64_t combine_key(std::uint64_t key, std::uint64_t counter) {
  return mix64(key ^ mix64(counter));
}

// [0, 1) with 53 bits.
[[maybe_unused]] static constexpr double unit_interval(std::uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace tempora
