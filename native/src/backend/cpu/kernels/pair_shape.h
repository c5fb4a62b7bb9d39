// What blocks and panels of pair_product.cpp are, however a pair is laid out.
#pragma once

#include "lanes.h"
#include "pair_product.h"
#include "panel_shape.h"
#include "row_offsets.h"
#include "simd.h"

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

}  // namespace tempora::TEMPORA_ISA
