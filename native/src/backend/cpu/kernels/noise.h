// Counter-based noise, 16 bits an element: four elements share a word.
#pragma once

#include "../../../forest/random.h"
#include "simd.h"

namespace tempora::TEMPORA_ISA {

// The bits of kWidth elements from `element` on, a multiple of 4: number e % 4 of combine_key(key, e / 4).
inline VecU noise_bits(std::uint64_t key, std::int64_t element) {
  std::uint64_t words[kWidth / 4];
  for (int i = 0; i < kWidth / 4; ++i) words[i] = combine_key(key, static_cast<std::uint64_t>(element / 4 + i));
  VecH noise;
  __builtin_memcpy(&noise, words, sizeof noise);
  return __builtin_convertvector(noise, VecU);
}

}  // namespace tempora::TEMPORA_ISA
