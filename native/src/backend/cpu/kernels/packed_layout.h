// Laying out panels for packed.cpp.
#pragma once

#include "panel_shape.h"

namespace tempora::TEMPORA_ISA {

// The elements of one column that a step of k takes: 4 bytes, moved as one.
template <typename T, int kStep>
inline std::uint32_t unit_at(const T* row, std::int64_t unit, std::int64_t k) {
  static_assert(sizeof(T) * kStep == 4);
  std::uint32_t value = 0;
  if (unit * kStep + kStep <= k) {
    __builtin_memcpy(&value, row + unit * kStep, 4);
  } else {
    __builtin_memcpy(&value, row + unit * kStep, sizeof(T));
  }
  return value;
}

// A few units of a row at a time, so that what is written stays in the cache until its neighbours come.
template <typename T, int kStep, int kUnit>
static void pack(const void* weight, std::int64_t first, std::int64_t count, std::int64_t k, void* panel) {
  constexpr std::int64_t kUnits = 16;
  const std::int64_t units = (k + kStep - 1) / kStep;
  const T* rows = static_cast<const T*>(weight) + first * k;
  std::uint32_t* to = static_cast<std::uint32_t*>(panel);
  const std::int64_t padded = (k + kUnit - 1) / kUnit * kUnit / kStep;
  const std::int64_t cleared = count < kPanelColumns ? 0 : units;
  __builtin_memset(to + cleared * kPanelColumns, 0, static_cast<std::size_t>((padded - cleared) * kPanelColumns) * 4);
  std::int64_t begin = 0;
  for (; (begin + kUnits) * kStep <= k; begin += kUnits, to += kUnits * kPanelColumns) {
    for (std::int64_t column = 0; column < count; ++column) {
      // More rows at a time than the processor's own prefetching follows.
      __builtin_prefetch(rows + column * k + (begin + 4 * kUnits) * kStep);
      std::uint32_t values[kUnits];
      __builtin_memcpy(values, rows + column * k + begin * kStep, sizeof values);
      for (std::int64_t i = 0; i < kUnits; ++i) to[i * kPanelColumns + column] = values[i];
    }
  }
  for (; begin < units; ++begin, to += kPanelColumns) {
    for (std::int64_t column = 0; column < count; ++column) {
      to[column] = unit_at<T, kStep>(rows + column * k, begin, k);
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
