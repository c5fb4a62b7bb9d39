// The words in which attention's products take their operands: f32 numbers or, where there is the bf16 dot product and
// the activations are bf16 too, pairs of bf16 numbers of consecutive k. Probabilities and their gradients are rounded
// to bf16 for that, as FlashAttention does on a GPU; sums stay in f32.
#pragma once

#include "attention_product.h"
#if defined(TEMPORA_TILES)
#include "attention_product_tiles.h"
#endif

namespace tempora::TEMPORA_ISA {

#if defined(__AVX512BF16__) && !defined(TEMPORA_TILES)
template <typename T>
constexpr int kPerWord = sizeof(T) == sizeof(Bf16) ? 2 : 1;
#else
template <typename T>
constexpr int kPerWord = 1;
#endif

// Words that hold n numbers, the last one's second half zero where n is odd.
template <typename T>
constexpr std::int64_t words(std::int64_t n) {
  return (n + kPerWord<T> - 1) / kPerWord<T>;
}

#if !defined(TEMPORA_TILES)

// A product of numbers that come from activations of type T.
template <typename T>
inline void multiply_as(const BlockProduct& p) {
  multiply<kPerWord<T>>(p);
}

// Whether scores are scaled after their product, which is exact then, instead of the queries before it.
template <typename T>
constexpr bool kScalesScores = kPerWord<T> == 2;

#endif

// Copies one row of n numbers as words along the row, with zeros up to the next whole vector of numbers.
template <typename T>
inline void word_row(const T* from, std::int64_t n, float* to) {
  if constexpr (kPerWord<T> == 1) {
    widen_row(from, n, to);
  } else {
    // Inlined: rows are short, and calls of memcpy would take longer than the copies.
    std::int64_t i = 0;
    for (; i + kWidth <= n; i += kWidth) __builtin_memcpy(reinterpret_cast<T*>(to) + i, from + i, kWidth * sizeof(T));
    if (i < n) {
      __builtin_memset(reinterpret_cast<T*>(to) + i, 0, kWidth * sizeof(T));
      __builtin_memcpy(to + i / 2, from + i, static_cast<std::size_t>(n - i) * sizeof(T));
    }
  }
}

// bf16 bits of each lane, in its lower half.
inline VecU rounded_bits(VecF x) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<VecU>(_mm512_maskz_cvtepu16_epi32(0xFFFF, to_bf16(x)));
#else
  return bf16_bits(x);
#endif
}

// A vector's numbers as half as many words along it.
inline void store_halves(float* to, VecF numbers) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bf16(numbers));
#else
  store(reinterpret_cast<Bf16*>(to), numbers);
#endif
}

// Words of the numbers of two vectors, lane by lane.
inline VecF paired(VecF first, VecF second) {
  return reinterpret_cast<VecF>(rounded_bits(first) | (rounded_bits(second) << 16));
}

// to words [padded], of two rows of `padded` numbers, column by column; second is null where there is only one.
inline void pair_rows(const float* first, const float* second, std::int64_t padded, float* to) {
  const auto numbers = [](const float* row, std::int64_t c) {
    return reinterpret_cast<VecU>(load(reinterpret_cast<const Bf16*>(row) + c));  // in the upper halves
  };
  for (std::int64_t c = 0; c < padded; c += kWidth) {
    const VecU high = second == nullptr ? VecU{} : numbers(second, c);
    store(to + c, reinterpret_cast<VecF>((numbers(first, c) >> 16) | high));
  }
}

// Makes words along the column of `count` rows of words along the row: to [words(count), padded] of rows
// [count, words(padded)]. Where a word is one number they are the same, and to must be rows.
template <typename T>
inline void pair_columns(const float* rows, std::int64_t count, std::int64_t padded, float* to) {
  if constexpr (kPerWord<T> == 2) {
    const std::int64_t stride = words<T>(padded);
    for (std::int64_t row = 0; row < count; row += 2) {
      const float* first = rows + row * stride;
      pair_rows(first, row + 1 < count ? first + stride : nullptr, padded, to + row / 2 * padded);
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
