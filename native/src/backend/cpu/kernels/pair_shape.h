// What blocks and panels of pair_product.cpp are, however a pair is laid out.
#pragma once

#include "lanes.h"
#include "pair_product.h"
#include "panel_shape.h"
#include "row_offsets.h"
#include "simd.h"
#include "word_transpose.h"

namespace tempora::TEMPORA_ISA {

// The sums, two vectors of the right operand and one of the left fit the 32 registers, or 16.
constexpr int kBlockRows = kWidth == 16 ? 12 : 6;

// Rows that are asked for ahead: more of them at a time than the processor's own prefetching follows. Whoever lays out
// a panel lays out its neighbour next, so that what that is made of is asked for too, into the second cache.
constexpr std::int64_t kRowsAhead = 48;
constexpr int kSecondCache = 2;

// So many columns at a time, whole blocks and whole cache lines.
constexpr std::int64_t kColumnsAtOnce = 96;
static_assert(kColumnsAtOnce % kBlockRows == 0 && kColumnsAtOnce % kPanelColumns == 0);
// Of each row several lines are asked for ahead. Lines of rows that are a multiple of 1 KB apart share few places of
// the first cache: more rows would drive each other out.
constexpr std::int64_t kWideRowsAhead = 12;

// A panel of `columns` rows of a matrix whose columns are k, even: store(pair, column, words) gets pair after pair, a
// vector of columns from `column` on.
template <typename Store>
[[gnu::always_inline]] inline void transpose_pairs(const void* from, std::int64_t row, std::int64_t k,
                                                   std::int64_t columns, const Store& store) {
  const Bf16* source = static_cast<const Bf16*>(from);
  const std::int64_t pairs = k / 2;
  for (std::int64_t pair = 0; pair < pairs; pair += kWidth) {
    const FirstLanes lanes(pairs - pair);
    for (int column = 0; column < kPanelColumns; column += kWidth) {
      WordRow rows[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) {
        const Bf16* words = source + (column + i) * row + 2 * pair;
        rows[i] = column + i < columns ? lanes.load_words(words) : WordRow{};
        __builtin_prefetch(words + kPanelColumns * row, 0, kSecondCache);
      }
      transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) {
        if (pair + i < pairs) store(pair + i, column, rows[i]);
      }
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
