#include "nf4_host.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "dynamic_map.h"

namespace tempora {
namespace {

// The nearest value's code.
std::uint8_t code_of(float x) {
  std::uint8_t code = 0;
  while (code < 15 && x > (kNf4Values[code] + kNf4Values[code + 1]) / 2) ++code;
  return code;
}

float largest_of(const std::vector<float>& values, std::int64_t begin, std::int64_t end) {
  float largest = 0;
  for (std::int64_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(values[static_cast<std::size_t>(i)]));
  return largest;
}

void quantise_maxima(std::vector<float> maxima, const Nf4Layout& layout, std::uint8_t* storage) {
  double sum = 0;
  for (const float maximum : maxima) sum += maximum;
  const auto offset = static_cast<float>(sum / static_cast<double>(layout.blocks));
  for (float& maximum : maxima) maximum -= offset;
  for (std::int64_t first = 0; first < layout.blocks; first += kNf4MaximaBlock) {
    const std::int64_t end = std::min(layout.blocks, first + kNf4MaximaBlock);
    const float scale = largest_of(maxima, first, end);
    std::memcpy(storage + layout.scales + static_cast<std::size_t>(first / kNf4MaximaBlock) * 4, &scale, 4);
    for (std::int64_t block = first; block < end; ++block) {
      const float maximum = maxima[static_cast<std::size_t>(block)];
      storage[layout.maxima + static_cast<std::size_t>(block)] =
          signed_dynamic_map().code_of(scale == 0 ? 0.0f : maximum / scale);
    }
  }
  std::memcpy(storage + layout.offset, &offset, 4);
}

// The absolute maxima of the blocks [blocks].
std::vector<float> maxima_of(const std::uint8_t* storage, std::int64_t n) {
  const Nf4Layout layout(n);
  std::vector<float> maxima(static_cast<std::size_t>(layout.blocks));
  float offset;
  std::memcpy(&offset, storage + layout.offset, 4);
  for (std::size_t block = 0; block < maxima.size(); ++block) {
    float scale;
    std::memcpy(&scale, storage + layout.scales + block / kNf4MaximaBlock * 4, 4);
    maxima[block] = signed_dynamic_map().values[storage[layout.maxima + block]] * scale + offset;
  }
  return maxima;
}

}  // namespace

std::vector<std::uint8_t> nf4_quantised(const std::vector<float>& values) {
  const auto n = static_cast<std::int64_t>(values.size());
  const Nf4Layout layout(n);
  std::vector<std::uint8_t> storage(layout.bytes);
  std::vector<float> maxima(static_cast<std::size_t>(layout.blocks));
  for (std::int64_t block = 0; block < layout.blocks; ++block) {
    const std::int64_t begin = block * kNf4Block, end = std::min(n, begin + kNf4Block);
    const float largest = largest_of(values, begin, end);
    maxima[static_cast<std::size_t>(block)] = largest;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint8_t code = code_of(largest == 0 ? 0.0f : values[static_cast<std::size_t>(i)] / largest);
      storage[static_cast<std::size_t>(i / 2)] |= static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 : code);
    }
  }
  quantise_maxima(std::move(maxima), layout, storage.data());
  return storage;
}

bool nf4_finite(const std::uint8_t* storage, std::int64_t n) {
  const std::vector<float> maxima = maxima_of(storage, n);
  return std::all_of(maxima.begin(), maxima.end(), [](float maximum) { return std::isfinite(maximum); });
}

std::vector<float> nf4_dequantised(const std::uint8_t* storage, std::int64_t n) {
  const std::vector<float> maxima = maxima_of(storage, n);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint8_t pair = storage[i / 2];
    values[i] = kNf4Values[i % 2 == 0 ? pair >> 4 : pair & 15] * maxima[i / kNf4Block];
  }
  return values;
}

}  // namespace tempora
