// Sums of cached values, weighted for decoding rows.
#pragma once

#include "cached_scores.h"

namespace tempora::TEMPORA_ISA {

// The dot product of pairs takes weights that are rounded to bf16, as tree attention does, and adds the product of the
// upper halves first: the earlier key's. A sum is then one chain over keys in their order, whichever of them are pairs.
// So that a pair of weights at any position is a word, they are in memory from the last to the first.
#if defined(__AVX512BF16__)
// to [n] = weights [n], a multiple of 16, rounded and turned.
inline void turned_weights(const float* weights, std::int64_t n, Bf16* to) {
  const __m256i turn = _mm256_set_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (std::int64_t i = 0; i < n; i += kWidth) {
    const __m256i turned = _mm256_maskz_permutexvar_epi16(0xFFFF, turn, to_bf16(load(weights + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + n - kWidth - i), turned);
  }
}
#endif

// Weights of a chunk's rows.
template <typename T>
struct WeightRows {
  const float* first;   // turned where there is the dot product
  std::int64_t stride;  // floats of a row; as many numbers where they are turned
  std::int64_t at;      // of the block's first key

  // A pair of weights, or one.
  float of(std::int64_t row, std::int64_t key) const {
    if constexpr (kDotPairs<T>) {
      float pair;
      __builtin_memcpy(&pair, reinterpret_cast<const Bf16*>(first) + (row + 1) * stride - 2 - at - key, sizeof pair);
      return pair;
    } else {
      return first[row * stride + at + key];
    }
  }
};

// outputs [rows, columns] += weights · values, over keys [begin, end). Meanwhile as much of `next` is asked for, by the
// first tile's rows.
template <typename T>
struct WeightedValues {
  const WeightRows<T>& weights;
  std::int64_t row;  // of the weights
  const BlockPages<T>& pages;
  const BlockPages<T>& next;
  std::int32_t begin, end;
  std::int64_t columns;
  float* outputs;

  template <int kRows, int kVectors>
  void compute(std::int64_t tile_row, int vector) const {
    constexpr std::int32_t kStep = kNumbersPerWord<T>;
    float* to = outputs + tile_row * columns + vector * kWidth;
    VecF sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = load(to + r * columns + v * kWidth);
    }
    // Where a pair's first key is before `begin`, it weighs nothing in any row.
    for (std::int32_t key = begin / kStep * kStep; key < end;) {
      const std::int32_t page = key / kCachePageKeys, page_end = (page + 1) * kCachePageKeys;
      const std::int64_t at = key % kCachePageKeys / kStep * columns + vector * kWidth;
      const float* words = reinterpret_cast<const float*>(pages.at[page]) + at;
      const float* ahead = reinterpret_cast<const float*>((tile_row == 0 ? next : pages).at[page]) + at;
      const std::int32_t stop = page_end < end ? page_end : end;
      for (; key + kStep <= stop; key += kStep, words += columns, ahead += columns) {
        add<kRows, kVectors, false>(tile_row, key, words, sum);
#pragma GCC unroll 4
        for (int number = 0; number < kVectors * kWidth; number += 16) __builtin_prefetch(ahead + number, 0, 2);
      }
      if (key < stop) {
        add<kRows, kVectors, true>(tile_row, key, words, sum);
        key += kStep;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(to + r * columns + v * kWidth, sum[r][v]);
    }
  }

 private:
  // One word's keys, or (kFirst) the earlier of two: what is behind it may be anything.
  template <int kRows, int kVectors, bool kFirst>
  inline void add(std::int64_t tile_row, std::int32_t key, const float* words, VecF (&sum)[kRows][kVectors]) const {
    VecF word[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      word[v] = load(words + v * kWidth);
      if (kFirst) word[v] = upper(word[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float weight = weights.of(row + tile_row + r, key);
      if constexpr (kDotPairs<T> || kNumbersPerWord<T> == 1) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sum[r][v] = multiply_add(weight, word[v], sum[r][v], Words<kNumbersPerWord<T>>{});
        }
      } else {
        const float later = kFirst ? 0 : weights.of(row + tile_row + r, key + 1);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sum[r][v] += weight * upper(word[v]);
          sum[r][v] += later * reinterpret_cast<VecF>(reinterpret_cast<VecU>(word[v]) << 16);
        }
      }
    }
  }

  static VecF upper(VecF word) { return reinterpret_cast<VecF>(reinterpret_cast<VecU>(word) & 0xFFFF0000u); }
};

}  // namespace tempora::TEMPORA_ISA
