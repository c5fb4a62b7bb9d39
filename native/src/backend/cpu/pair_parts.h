// How products of pairs are split.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../matrix.h"
#include "kernels/byte_rows.h"

namespace tempora {

// Pairs that are multiplied before sums of f32, which are added to, go to memory.
constexpr std::int64_t kMostPairs = 1024;

inline std::int64_t groups(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

// Whether threads that take so many items each wait for one of them by more than a part in 32.
inline bool uneven(std::int64_t items, std::int64_t threads) {
  return (groups(items, threads) * threads - items) * 32 > items;
}

// The share of `rows` that is brought beside part `part` of `parts` of other work: equal shares beside the last `late`
// of them, and nothing before.
inline ByteRows late_part_of(const ByteRows& rows, std::int64_t part, std::int64_t parts, std::int64_t late) {
  const std::int64_t of = std::min(parts, late), i = part - (parts - of);
  if (i < 0) return {};
  const std::int64_t begin = rows.rows * i / of, end = rows.rows * (i + 1) / of;
  return {static_cast<const char*>(rows.data) + begin * rows.row, end - begin, rows.row, rows.bytes};
}

// Whether what is laid out of it is multiplied by enough.
inline bool is_large(const Matrix& x) { return std::min(x.rows, x.cols) >= 32; }

}  // namespace tempora
