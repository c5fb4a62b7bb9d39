// Pairs of bf16 as one word each, for the dot products of pair_product.cpp (vdpbf16ps).
#pragma once

#include <immintrin.h>

#include "pair_shape.h"

namespace tempora::TEMPORA_ISA {

// What a column of a panel and a row of a block take of a pair.
constexpr std::int64_t kPairBytes = 4;

// The first `count` of 32 halves.
inline __mmask32 first_halves(std::int64_t count) {
  return count >= 32 ? 0xFFFFFFFFu : (1u << (count < 0 ? 0 : count)) - 1;
}

inline void prefetch_two(const std::uint16_t* row, std::int64_t apart) {
  __builtin_prefetch(row);
  __builtin_prefetch(row + apart);
}

// Which words of two vectors make 16 pairs, from the `first` column on.
struct PairOrder {
  std::uint16_t words[32];
  explicit constexpr PairOrder(int first) : words() {
    for (int i = 0; i < 16; ++i) {
      words[2 * i] = static_cast<std::uint16_t>(first + i);
      words[2 * i + 1] = static_cast<std::uint16_t>(32 + first + i);
    }
  }
};
alignas(64) inline constexpr PairOrder kFirstPairs(0), kLastPairs(16);

// 32 columns of two rows as pairs.
struct ColumnPairs {
  __m512i first, last;

  ColumnPairs(const std::uint16_t* even, const std::uint16_t* odd, __mmask32 even_mask, __mmask32 odd_mask) {
    const __m512i a = _mm512_maskz_loadu_epi16(even_mask, even), b = _mm512_maskz_loadu_epi16(odd_mask, odd);
    first = _mm512_permutex2var_epi16(a, _mm512_load_si512(kFirstPairs.words), b);
    last = _mm512_permutex2var_epi16(a, _mm512_load_si512(kLastPairs.words), b);
  }
  void store(std::uint32_t* to) const {
    _mm512_storeu_si512(to, first);
    _mm512_storeu_si512(to + 16, last);
  }
};

static void pair_rows(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  const std::uint16_t* source = static_cast<const std::uint16_t*>(from);
  std::uint32_t* target = static_cast<std::uint32_t*>(to);
  const __mmask32 mask = first_halves(columns);
  for (std::int64_t i = 0; i < k; i += 2, source += 2 * row, target += kPanelColumns) {
    prefetch_two(source + kRowsAhead * row, row);
    __builtin_prefetch(source + kPanelColumns, 0, kSecondCache);
    __builtin_prefetch(source + kPanelColumns + row, 0, kSecondCache);
    const bool two = i + 1 < k;
    ColumnPairs(source, source + (two ? row : 0), mask, two ? mask : 0).store(target);
  }
}

// 16 words of two vectors from the kFirst-th word of the first on.
template <int kFirst>
inline __m512i words_from(__m512i a, __m512i b) {
  return kFirst == 0 ? a : _mm512_maskz_alignr_epi32(0xFFFF, b, a, kFirst);
}

// 48 columns are three vectors of pairs, and four blocks.
struct BlockPairs {
  static constexpr int kColumns = 48;
  __m512i words[3];

  BlockPairs(const std::uint16_t* even, const std::uint16_t* odd, std::int64_t columns, bool two) {
    const __mmask32 mask = first_halves(columns), last = first_halves(columns - 32);
    const ColumnPairs a(even, odd, mask, two ? mask : 0), b(even + 32, odd + 32, last, two ? last : 0);
    words[0] = a.first;
    words[1] = a.last;
    words[2] = b.first;
  }
  // `block_words` from one block to the next.
  void store(std::uint32_t* to, std::int64_t block_words, std::int64_t blocks) const {
    constexpr __mmask16 kBlock = (1 << kBlockRows) - 1;
    const __m512i all[] = {words_from<0>(words[0], words[1]), words_from<12>(words[0], words[1]),
                           words_from<8>(words[1], words[2]), words_from<4>(words[2], words[2])};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (i < blocks) _mm512_mask_storeu_epi32(to + i * block_words, kBlock, all[i]);
    }
  }
};

static_assert(kColumnsAtOnce == 2 * BlockPairs::kColumns);

static void pair_blocks(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  const std::int64_t pairs = (k + 1) / 2, block_words = kBlockRows * pairs;
  for (std::int64_t begin = 0; begin < columns; begin += kColumnsAtOnce) {
    const std::uint16_t* source = static_cast<const std::uint16_t*>(from) + begin;
    std::uint32_t* target = static_cast<std::uint32_t*>(to) + begin * pairs;
    const std::int64_t first = columns - begin, second = first - BlockPairs::kColumns;
    for (std::int64_t i = 0; i < k; i += 2, source += 2 * row, target += kBlockRows) {
      const bool two = i + 1 < k;
      const std::uint16_t* odd = source + (two ? row : 0);
      prefetch_two(source + kWideRowsAhead * row, row);
      prefetch_two(source + kWideRowsAhead * row + 32, row);
      BlockPairs(source, odd, first, two).store(target, block_words, (first + kBlockRows - 1) / kBlockRows);
      if (second <= 0) continue;
      prefetch_two(source + kWideRowsAhead * row + 64, row);
      BlockPairs(source + BlockPairs::kColumns, odd + BlockPairs::kColumns, second, two)
          .store(target + 4 * block_words, block_words, (second + kBlockRows - 1) / kBlockRows);
    }
  }
}

static void pair_columns(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  transpose_pairs(from, row, k, columns, [=](std::int64_t pair, int column, WordRow words) {
    __builtin_memcpy(static_cast<std::uint32_t*>(to) + pair * kPanelColumns + column, &words, sizeof words);
  });
}

// Rows are multiplied as they are.
static std::int64_t scratch_bytes(std::int64_t) { return 0; }
inline PairRows left_rows(const PairRows& term, std::int64_t row, std::int64_t, char*&) {
  return {static_cast<const char*>(term.data) + row * term.row, term.row, term.pairs};
}

// sums += a pair of each row times the panel's. kBlocks: rows lie as pair_blocks writes them.
template <int kRows, bool kBlocks>
[[gnu::always_inline]] inline void multiply_pair(const char* left, const RowOffsets& offset, const char* right,
                                                 VecF (&sums)[kRows][kPanelVectors]) {
  __m512bh columns[kPanelVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kPanelVectors; ++v) {
    columns[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + v * 64));
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    int two;
    __builtin_memcpy(&two, offset.row(left, r), sizeof two);
    const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      sums[r][v] = reinterpret_cast<VecF>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums[r][v]), value, columns[v]));
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
