// The quantised blocks of GGUF files (ggml-quants.c: dequantize_row_*): 32 or 256 numbers of a row in so many bytes,
// one after the other, row by row. What a block's bytes stand for is decoded in groups of 32 numbers, by the same
// functions on every device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "weight_format.h"

namespace tempora {

constexpr int kGgufGroup = 32;

struct GgufBlock {
  int numbers, bytes;
  int halves, first_half;  // its float16 scales, and where they begin
};

// Static: see weight_format.h.
[[maybe_unused]] static constexpr GgufBlock gguf_block(WeightFormat format) {
  switch (format) {
    case WeightFormat::q4_0:
      return {32, 18, 1, 0};
    case WeightFormat::q4_1:
      return {32, 20, 2, 0};
    case WeightFormat::q5_0:
      return {32, 22, 1, 0};
    case WeightFormat::q5_1:
      return {32, 24, 2, 0};
    case WeightFormat::q8_0:
      return {32, 34, 1, 0};
    case WeightFormat::q4_k:
      return {256, 144, 2, 0};
    case WeightFormat::q5_k:
      return {256, 176, 2, 0};
    case WeightFormat::q6_k:
      return {256, 210, 1, 208};
    default:
      return {1, 0, 0, 0};
  }
}

// Of finite ones.
[[maybe_unused]] static constexpr float gguf_half(const std::uint8_t* bytes) {
  const unsigned bits = bytes[0] | static_cast<unsigned>(bytes[1]) << 8;
  const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float size = static_cast<float>(exponent == 0 ? 2 * fraction : 1024 + fraction) *
                     static_cast<float>(1u << exponent) * 0x1.0p-25f;
  return (bits & 0x8000) != 0 ? -size : size;
}

// Q4_0, Q4_1, Q5_0, Q5_1: scales, the fifth bits of q5, 16 bytes of nibbles: low ones first, then high ones.
template <WeightFormat format>
static constexpr void decode_nibbles(const std::uint8_t* block, float* to) {
  constexpr bool minimum = format == WeightFormat::q4_1 || format == WeightFormat::q5_1;
  constexpr bool fifth = format == WeightFormat::q5_0 || format == WeightFormat::q5_1;
  constexpr int head = (minimum ? 4 : 2) + (fifth ? 4 : 0);
  constexpr int offset = minimum ? 0 : fifth ? 16 : 8;
  const float d = gguf_half(block), m = minimum ? gguf_half(block + 2) : 0.0f;
  const std::uint8_t* bits = block + (minimum ? 4 : 2);  // read where there are fifth bits only
  for (int j = 0; j < 16; ++j) {
    const int pair = block[head + j];
    int low = pair & 15, high = pair >> 4;
    if constexpr (fifth) {
      low |= (bits[j / 8] >> (j % 8) & 1) << 4;
      high |= (bits[2 + j / 8] >> (j % 8) & 1) << 4;
    }
    to[j] = d * static_cast<float>(low - offset) + m;
    to[j + 16] = d * static_cast<float>(high - offset) + m;
  }
}

// Q4_K and Q5_K: two scales, twelve bytes of six-bit scales and minima of eight groups, the fifth bits of q5 (bit g of
// byte l belongs to number l of group g), nibbles of pairs of groups.
template <WeightFormat format>
static constexpr void decode_super_nibbles(const std::uint8_t* block, int group, float* to) {
  constexpr bool fifth = format == WeightFormat::q5_k;
  const std::uint8_t* s = block + 4;
  const int scale = group < 4 ? s[group] & 63 : (s[group + 4] & 15) | (s[group - 4] >> 6) << 4;
  const int minimum = group < 4 ? s[group + 4] & 63 : s[group + 4] >> 4 | (s[group] >> 6) << 4;
  const float d = gguf_half(block) * static_cast<float>(scale);
  const float m = gguf_half(block + 2) * static_cast<float>(minimum);
  const std::uint8_t* nibbles = block + (fifth ? 48 : 16) + 32 * (group / 2);
  const int shift = 4 * (group % 2);
  for (int l = 0; l < kGgufGroup; ++l) {
    int q = nibbles[l] >> shift & 15;
    if constexpr (fifth) q |= (block[16 + l] >> group & 1) << 4;
    to[l] = d * static_cast<float>(q) - m;
  }
}

// Q6_K: 128 bytes of low nibbles, 64 of high pairs of bits, 16 signed scales, d.
[[maybe_unused]] static constexpr void decode_q6_k(const std::uint8_t* block, int group, float* to) {
  const int part = group / 4, quarter = group % 4;
  const std::uint8_t* low = block + 64 * part + 32 * (quarter % 2);
  const std::uint8_t* high = block + 128 + 32 * part;
  const std::uint8_t* scales = block + 192 + 8 * part + 2 * quarter;
  const float d = gguf_half(block + 208);
  const int shift = 4 * (quarter / 2);
  for (int l = 0; l < kGgufGroup; ++l) {
    const int q = (low[l] >> shift & 15) | (high[l] >> (2 * quarter) & 3) << 4;
    const float scale = d * static_cast<float>(static_cast<std::int8_t>(scales[l / 16]));
    to[l] = scale * static_cast<float>(q - 32);
  }
}

// to [32] = the numbers of a group, counted over all blocks of a weight.
template <WeightFormat format>
static constexpr void decode_gguf_group(const std::uint8_t* storage, std::int64_t group, float* to) {
  constexpr GgufBlock shape = gguf_block(format);
  constexpr int groups = shape.numbers / kGgufGroup;
  const std::uint8_t* block = storage + group / groups * shape.bytes;
  const int within = static_cast<int>(group % groups);
  if constexpr (format == WeightFormat::q8_0) {
    const float d = gguf_half(block);
    for (int j = 0; j < kGgufGroup; ++j) to[j] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + j]));
  } else if constexpr (format == WeightFormat::q4_k || format == WeightFormat::q5_k) {
    decode_super_nibbles<format>(block, within, to);
  } else if constexpr (format == WeightFormat::q6_k) {
    decode_q6_k(block, within, to);
  } else {
    decode_nibbles<format>(block, to);
  }
}

// use.operator()<format>() for the format of a GGUF file's weight.
template <typename Use>
static constexpr void with_gguf_format(WeightFormat format, Use use) {
  switch (format) {
    case WeightFormat::q4_0:
      return use.template operator()<WeightFormat::q4_0>();
    case WeightFormat::q4_1:
      return use.template operator()<WeightFormat::q4_1>();
    case WeightFormat::q5_0:
      return use.template operator()<WeightFormat::q5_0>();
    case WeightFormat::q5_1:
      return use.template operator()<WeightFormat::q5_1>();
    case WeightFormat::q8_0:
      return use.template operator()<WeightFormat::q8_0>();
    case WeightFormat::q4_k:
      return use.template operator()<WeightFormat::q4_k>();
    case WeightFormat::q5_k:
      return use.template operator()<WeightFormat::q5_k>();
    case WeightFormat::q6_k:
      return use.template operator()<WeightFormat::q6_k>();
    default:
      return;
  }
}

}  // namespace tempora
