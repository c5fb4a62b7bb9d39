// NF4 with double quantisation (Dettmers et al. 2023, QLoRA), as bitsandbytes stores it: 4-bit codes of normal
// quantiles in blocks of 64 of the flattened weight, whose absolute maxima are 8-bit codes of the signed dynamic map in
// blocks of 256.
//
// A weight's storage, one part after the other:
//   codes    u8 [n / 2 rounded up]   two numbers a byte, the first in the high half
//   maxima   u8 [blocks]
//   padding to a multiple of 4
//   scales   f32 [blocks / 256 rounded up]
//   offset   f32                     a block's maximum = map[maxima] · scale + offset
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempora {

constexpr std::int64_t kNf4Block = 64;
constexpr std::int64_t kNf4MaximaBlock = 256;

constexpr float kNf4Values[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};

// Where the parts of n numbers begin, in bytes.
struct Nf4Layout {
  std::int64_t blocks;
  std::size_t maxima, scales, offset, bytes;

  explicit Nf4Layout(std::int64_t n)
      : blocks((n + kNf4Block - 1) / kNf4Block),
        maxima(static_cast<std::size_t>((n + 1) / 2)),
        scales((maxima + static_cast<std::size_t>(blocks) + 3) / 4 * 4),
        offset(scales + static_cast<std::size_t>((blocks + kNf4MaximaBlock - 1) / kNf4MaximaBlock) * 4),
        bytes(offset + 4) {}
};

}  // namespace tempora
