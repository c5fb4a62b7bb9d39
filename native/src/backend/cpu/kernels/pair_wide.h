// Pairs of bf16 as two numbers of f32, for CPUs without a dot product of pairs, or whose multiply-adds of f32 are
// faster (Intel's, by two to one): bf16 is widened once, where it is laid out, and multiplied many times.
#pragma once

#include "pair_shape.h"

namespace tempora::TEMPORA_ISA {

// What a column of a panel and a row of a block take of a pair: in both, all first numbers lie before the second ones.
constexpr std::int64_t kPairBytes = 8;

// Behind a widened row: its last vector is written whole, and rows of a power of two of numbers do not share places in
// the first cache.
constexpr std::int64_t kRowGap = 64;
static_assert(kRowGap >= (kWidth - 2) * 4);

static void pair_rows(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  const Bf16* source = static_cast<const Bf16*>(from);
  float* target = static_cast<float*>(to);
  const FirstLanes first(columns), last(columns - kWidth);
  for (std::int64_t i = 0; i < k; ++i, source += row, target += kPanelColumns) {
    __builtin_prefetch(source + kRowsAhead * row);
    __builtin_prefetch(source + kPanelColumns, 0, kSecondCache);
    store(target, first.load(source));
    store(target + kWidth, last.load(source + kWidth));
  }
  if (k % 2 != 0) __builtin_memset(target, 0, kPanelColumns * sizeof(float));
}

static void pair_blocks(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  constexpr std::int64_t kLine = 32;  // numbers of a cache line
  const std::int64_t padded = (k + 1) / 2 * 2, block_numbers = kBlockRows * padded;
  for (std::int64_t begin = 0; begin < columns; begin += kColumnsAtOnce) {
    const Bf16* source = static_cast<const Bf16*>(from) + begin;
    float* target = static_cast<float*>(to) + begin * padded;
    const std::int64_t count = columns - begin < kColumnsAtOnce ? columns - begin : kColumnsAtOnce;
    for (std::int64_t i = 0; i < padded; ++i, source += row, target += kBlockRows) {
      for (std::int64_t line = 0; line < count && i < k; line += kLine) {
        __builtin_prefetch(source + kWideRowsAhead * row + line);
      }
      float* block = target;
      for (std::int64_t column = 0; column < count; column += kBlockRows, block += block_numbers) {
        const VecF numbers = FirstLanes(i < k ? count - column : 0).load(source + column);
        __builtin_memcpy(block, &numbers, kBlockRows * sizeof(float));
      }
    }
  }
}

// Transposed as pairs, which are half as many, and then widened.
static void pair_columns(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  transpose_pairs(from, row, k, columns, [=](std::int64_t pair, int column, WordRow words) {
    float* target = static_cast<float*>(to) + 2 * pair * kPanelColumns + column;
    store(target, reinterpret_cast<VecF>(words << 16));
    store(target + kPanelColumns, reinterpret_cast<VecF>(words & 0xFFFF0000u));
  });
}

// Bytes for left_rows, of whole cache lines: the next thread's panels lie behind them.
static std::int64_t scratch_bytes(std::int64_t pairs) {
  const std::int64_t bytes = kBlockRows * (pairs * kPairBytes + static_cast<std::int64_t>(kMostPairTerms) * kRowGap);
  return (bytes + 63) / 64 * 64;
}

// Rows of a term as they are multiplied; `scratch` moves behind them.
inline PairRows left_rows(const PairRows& term, std::int64_t row, std::int64_t rows, char*& scratch) {
  const std::int64_t bytes = term.pairs * kPairBytes + kRowGap;
  const PairRows wide{scratch, bytes, term.pairs};
  for (std::int64_t r = 0; r < rows; ++r, scratch += bytes) {
    const char* from = static_cast<const char*>(term.data) + (row + r) * term.row;
    const Bf16* numbers = reinterpret_cast<const Bf16*>(from);
    float* to = reinterpret_cast<float*>(scratch);
    std::int64_t k = 0;
    for (; k + kWidth <= 2 * term.pairs; k += kWidth) store(to + k, load(numbers + k));
    if (k < 2 * term.pairs) store(to + k, FirstLanes(2 * term.pairs - k).load(numbers + k));
  }
  return wide;
}

// sum += a · b. Left to choose the operand that the result replaces, GCC takes a register more than there are, and then
// a sum goes through memory.
[[gnu::always_inline]] inline void add_product(VecF& sum, VecF a, VecF b) {
#if defined(__AVX512F__)
  asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#endif
}

// sums += a pair of each row times the panel's. kBlocks: rows lie as pair_blocks writes them.
template <int kRows, bool kBlocks>
[[gnu::always_inline]] inline void multiply_pair(const char* left, const RowOffsets& offset, const char* right,
                                                 VecF (&sums)[kRows][kPanelVectors]) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const float* numbers = reinterpret_cast<const float*>(right) + half * kPanelColumns;
    VecF columns[kPanelVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) columns[v] = load(numbers + v * kWidth);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      float one;
      __builtin_memcpy(&one, offset.row(left + (kBlocks ? 4 * kBlockRows : 4) * half, r), sizeof one);
      const VecF value = splat(one);
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) add_product(sums[r][v], value, columns[v]);
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
