#include "dynamic_map.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

namespace tempora {
namespace {

constexpr int kDecades = 7;

std::vector<float> values_of(bool has_sign) {
  std::vector<float> values{0.0f, 1.0f};
  for (int decade = 0; decade < kDecades; ++decade) {
    const int fractions = 1 << (has_sign ? decade : decade + 1);
    const double scale = std::pow(10.0, decade - (kDecades - 1));
    for (int i = 0; i < fractions; ++i) {
      // The middle of a part of [0.1, 1].
      const double middle = 0.1 + 0.9 * (i + 0.5) / fractions;
      values.push_back(static_cast<float>(scale * middle));
      if (has_sign) values.push_back(static_cast<float>(-scale * middle));
    }
  }
  std::sort(values.begin(), values.end());
  return values;
}

std::unique_ptr<DynamicMap> make(bool has_sign) {
  auto map = std::make_unique<DynamicMap>();
  const std::vector<float> values = values_of(has_sign);
  std::copy(values.begin(), values.end(), map->values);
  for (int i = 0; i < 255; ++i) {
    map->midpoints[i] = static_cast<float>((static_cast<double>(values[i]) + values[i + 1]) / 2);
  }
  map->midpoints[255] = std::numeric_limits<float>::infinity();
  for (std::uint32_t high = 0; high < 65536; ++high) {
    const bool negative = (high & 0x8000u) != 0;
    // The lowest number with these upper bits: of negative ones the one with the largest magnitude.
    const std::uint32_t bits = high << 16 | (negative ? 0xFFFFu : 0u);
    float lowest;
    std::memcpy(&lowest, &bits, sizeof lowest);
    // Not a number, and what lies beyond the map, is as its end.
    if (std::isnan(lowest)) lowest = negative ? -1.0f : 1.0f;
    const auto found = std::lower_bound(map->midpoints, map->midpoints + 255, lowest);
    map->first_code[high] = static_cast<std::uint8_t>(found - map->midpoints);
  }
  return map;
}

}  // namespace

const DynamicMap& signed_dynamic_map() {
  static const std::unique_ptr<DynamicMap> map = make(true);
  return *map;
}

const DynamicMap& unsigned_dynamic_map() {
  static const std::unique_ptr<DynamicMap> map = make(false);
  return *map;
}

}  // namespace tempora
