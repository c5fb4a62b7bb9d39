#include "gguf_host.h"

namespace tempora {

bool gguf_finite(WeightFormat format, const std::uint8_t* blocks, std::size_t bytes) {
  const GgufBlock shape = gguf_block(format);
  const auto size = static_cast<std::size_t>(shape.bytes);
  for (std::size_t block = 0; block < bytes; block += size) {
    for (int half = 0; half < shape.halves; ++half) {
      // The high byte of a float16 has its sign and exponent.
      const std::size_t high = block + static_cast<std::size_t>(shape.first_half + 2 * half) + 1;
      if ((blocks[high] & 0x7C) == 0x7C) return false;
    }
  }
  return true;
}

std::vector<float> gguf_dequantised(WeightFormat format, const std::uint8_t* blocks, std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  with_gguf_format(format, [&]<WeightFormat known>() {
    for (std::int64_t group = 0; group < n / kGgufGroup; ++group) {
      decode_gguf_group<known>(blocks, group, values.data() + group * kGgufGroup);
    }
  });
  return values;
}

}  // namespace tempora
