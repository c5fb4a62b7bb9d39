// Laying out pairs for pair_product.cpp.
#pragma once

#include <immintrin.h>

#include "pair_product.h"
#include "simd.h"

namespace tempora::TEMPORA_ISA {

constexpr int kPanelColumns = 32;
// 24 sums, two vectors of the right operand and one of the left fit the 32 registers.
constexpr int kBlockRows = 12;

// The first `count` of 16 words, or of 32 halves.
inline __mmask16 first_words(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFFu : (1u << (count < 0 ? 0 : count)) - 1);
}
inline __mmask32 first_halves(std::int64_t count) {
  return count >= 32 ? 0xFFFFFFFFu : (1u << (count < 0 ? 0 : count)) - 1;
}

// Rows that are asked for ahead: more of them at a time than the processor's own prefetching follows. Whoever lays out
// a panel lays out its neighbour next, so that what that is made of is asked for too, into the second cache.
constexpr std::int64_t kRowsAhead = 48;
constexpr int kSecondCache = 2;

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

inline void prefetch_two(const std::uint16_t* row, std::int64_t apart) {
  __builtin_prefetch(row);
  __builtin_prefetch(row + apart);
}

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

// So many columns at a time, whole blocks and whole cache lines.
constexpr std::int64_t kColumnsAtOnce = 96;
static_assert(kColumnsAtOnce % kBlockRows == 0 && kColumnsAtOnce % kPanelColumns == 0);
// Of each row several lines are asked for ahead. Lines of rows that are a multiple of 1 KB apart share few places of
// the first cache: more rows would drive each other out.
constexpr std::int64_t kWideRowsAhead = 12;

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

// Words and pairs of words as GCC's own vectors: its intrinsics for these shuffles warn of values that they do not use.
using Words = std::uint32_t __attribute__((vector_size(64)));
using Pairs = std::uint64_t __attribute__((vector_size(64)));

inline Words low_words(Words a, Words b) {
  return shuffle_as<Words, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(a, b);
}
inline Words high_words(Words a, Words b) {
  return shuffle_as<Words, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(a, b);
}
inline Words low_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle_as<Pairs, 0, 8, 2, 10, 4, 12, 6, 14>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
inline Words high_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle_as<Pairs, 1, 9, 3, 11, 5, 13, 7, 15>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
// Of each, the first and third, or the second and fourth 16 bytes.
inline Words even_quarters(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle_as<Pairs, 0, 1, 4, 5, 8, 9, 12, 13>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}
inline Words odd_quarters(Words a, Words b) {
  return reinterpret_cast<Words>(
      shuffle_as<Pairs, 2, 3, 6, 7, 10, 11, 14, 15>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}

// 16 × 16 words, transposed in registers.
inline void transpose(Words (&rows)[16]) {
  Words t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = low_words(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = high_words(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[4 * i] = low_pairs(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = high_pairs(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = low_pairs(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = high_pairs(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = even_quarters(rows[i], rows[4 + i]);
    t[4 + i] = odd_quarters(rows[i], rows[4 + i]);
    t[8 + i] = even_quarters(rows[8 + i], rows[12 + i]);
    t[12 + i] = odd_quarters(rows[8 + i], rows[12 + i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = even_quarters(t[i], t[8 + i]);
    rows[8 + i] = odd_quarters(t[i], t[8 + i]);
    rows[4 + i] = even_quarters(t[4 + i], t[12 + i]);
    rows[12 + i] = odd_quarters(t[4 + i], t[12 + i]);
  }
}

static void pair_columns(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to) {
  const std::uint16_t* source = static_cast<const std::uint16_t*>(from);
  const std::int64_t pairs = k / 2;
  for (std::int64_t pair = 0; pair < pairs; pair += 16) {
    const __mmask16 mask = first_words(pairs - pair);
    for (int half = 0; half < kPanelColumns; half += 16) {
      Words rows[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        const std::uint16_t* words = source + (half + i) * row + 2 * pair;
        rows[i] = half + i < columns ? reinterpret_cast<Words>(_mm512_maskz_loadu_epi32(mask, words)) : Words{};
        __builtin_prefetch(words + kPanelColumns * row, 0, kSecondCache);
      }
      transpose(rows);
      std::uint32_t* target = static_cast<std::uint32_t*>(to) + pair * kPanelColumns + half;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        if (pair + i < pairs) __builtin_memcpy(target + i * kPanelColumns, &rows[i], sizeof rows[i]);
      }
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
