// As many rows of words as a vector has lanes, transposed in registers.
#pragma once

#include "simd.h"

namespace tempora::TEMPORA_ISA {

// Words and pairs of them as GCC's own vectors: its intrinsics for these shuffles warn of values that they do not use.
using WordRow = VecU;
using Pairs = std::uint64_t __attribute__((vector_size(kWidth * 4)));

template <int... kPair>
inline WordRow shuffle_pairs(WordRow a, WordRow b) {
  return reinterpret_cast<WordRow>(shuffle_as<Pairs, kPair...>(reinterpret_cast<Pairs>(a), reinterpret_cast<Pairs>(b)));
}

// Shuffles within each 16 bytes, and join_quarters: of rows whose 16 bytes are transposed as blocks of 4 × 4 words, the
// blocks.
#if defined(__AVX512F__)

inline WordRow low_words(WordRow a, WordRow b) {
  return shuffle_as<WordRow, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(a, b);
}
inline WordRow high_words(WordRow a, WordRow b) {
  return shuffle_as<WordRow, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(a, b);
}
inline WordRow low_pairs(WordRow a, WordRow b) { return shuffle_pairs<0, 8, 2, 10, 4, 12, 6, 14>(a, b); }
inline WordRow high_pairs(WordRow a, WordRow b) { return shuffle_pairs<1, 9, 3, 11, 5, 13, 7, 15>(a, b); }
// Of each, the first and third, or the second and fourth 16 bytes.
inline WordRow even_quarters(WordRow a, WordRow b) { return shuffle_pairs<0, 1, 4, 5, 8, 9, 12, 13>(a, b); }
inline WordRow odd_quarters(WordRow a, WordRow b) { return shuffle_pairs<2, 3, 6, 7, 10, 11, 14, 15>(a, b); }

inline void join_quarters(WordRow (&rows)[16]) {
  WordRow t[16];
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

#elif defined(__AVX2__)

inline WordRow low_words(WordRow a, WordRow b) { return shuffle_as<WordRow, 0, 8, 1, 9, 4, 12, 5, 13>(a, b); }
inline WordRow high_words(WordRow a, WordRow b) { return shuffle_as<WordRow, 2, 10, 3, 11, 6, 14, 7, 15>(a, b); }
inline WordRow low_pairs(WordRow a, WordRow b) { return shuffle_pairs<0, 4, 2, 6>(a, b); }
inline WordRow high_pairs(WordRow a, WordRow b) { return shuffle_pairs<1, 5, 3, 7>(a, b); }

inline void join_quarters(WordRow (&rows)[8]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const WordRow upper = rows[i], lower = rows[4 + i];
    rows[i] = shuffle_pairs<0, 1, 4, 5>(upper, lower);
    rows[4 + i] = shuffle_pairs<2, 3, 6, 7>(upper, lower);
  }
}

#endif

#if defined(__AVX2__)

// rows[i][j] becomes rows[j][i].
inline void transpose(WordRow (&rows)[kWidth]) {
  WordRow t[kWidth];
#pragma GCC unroll 8
  for (int i = 0; i < kWidth; i += 2) {
    t[i] = low_words(rows[i], rows[i + 1]);
    t[i + 1] = high_words(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kWidth; i += 4) {
    rows[i] = low_pairs(t[i], t[i + 2]);
    rows[i + 1] = high_pairs(t[i], t[i + 2]);
    rows[i + 2] = low_pairs(t[i + 1], t[i + 3]);
    rows[i + 3] = high_pairs(t[i + 1], t[i + 3]);
  }
  join_quarters(rows);
}

#endif

}  // namespace tempora::TEMPORA_ISA
