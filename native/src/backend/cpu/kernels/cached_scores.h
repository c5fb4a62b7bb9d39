// Products of decoding rows' queries and cached keys.
#pragma once

#include "attention_product.h"
#include "block_pages.h"

namespace tempora::TEMPORA_ISA {

constexpr int kPageVectors = kCachePageKeys / kWidth;

// The dot product takes pairs of bf16 as they are: queries stay so too, and scores are scaled after the product.
// Elsewhere a word's numbers are widened, and queries are scaled before.
#if defined(__AVX512BF16__)
template <typename T>
constexpr bool kDotPairs = sizeof(T) == sizeof(Bf16);
#else
template <typename T>
constexpr bool kDotPairs = false;
#endif

// What a word of keys is multiplied by, of a row of queries in the scratch: a pair for the dot product, else f32
// numbers.
template <typename T>
constexpr int kQueryStep = kDotPairs<T> ? 1 : kNumbersPerWord<T>;

template <typename T>
constexpr std::int64_t query_row(int head_dim) {
  return key_words<T>(head_dim) * kQueryStep<T>;
}

// sum += a row's query times a word of a vector's keys.
template <typename T>
inline VecF add_word(const float* query, VecF word, VecF sum) {
  if constexpr (kDotPairs<T> || kNumbersPerWord<T> == 1) {
    return multiply_add(*query, word, sum, Words<kNumbersPerWord<T>>{});
  } else {
    const VecU bits = reinterpret_cast<VecU>(word);
    sum += query[0] * reinterpret_cast<VecF>(bits << 16);
    return sum + query[1] * reinterpret_cast<VecF>(bits & 0xFFFF0000u);
  }
}

// scores [rows, stride] = queries · keys, a vector of one page's keys at a time. Lanes behind a segment's end hold
// anything, until the scores of the path's next block are written over them. Pages lie apart, so that the processor
// does not foresee them: meanwhile a little of as many pages of `next` is asked for, the keys of the next block. Rows
// behind the first tile's ask for what is there, which costs less than a branch.
template <typename T>
struct Scores {
  const float* queries;
  int head_dim;
  float scale;
  const BlockPages<T>& keys;
  const BlockPages<T>& next;
  float* scores;
  std::int64_t stride;

  template <int kRows, int kVectors>
  void compute(std::int64_t row, int vector) const {
    const std::int64_t words = key_words<T>(head_dim), query_stride = query_row<T>(head_dim);
    const float* query = queries + row * query_stride;
    const float *from[kVectors], *ahead[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int page = (vector + v) / kPageVectors;
      from[v] = reinterpret_cast<const float*>(keys.at[page]) + (vector + v) % kPageVectors * kWidth;
      ahead[v] = reinterpret_cast<const float*>((row == 0 ? next : keys).at[page]);
    }
    VecF sum[kRows][kVectors] = {};
    for (std::int64_t word = 0; word < words; ++word, query += kQueryStep<T>) {
      VecF columns[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) columns[v] = load(from[v] + word * kCachePageKeys);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sum[r][v] = add_word<T>(query + r * query_stride, columns[v], sum[r][v]);
      }
      // A page's keys of one word are a cache line.
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v += kPageVectors) __builtin_prefetch(ahead[v] + word * kCachePageKeys, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* to = scores + (row + r) * stride + vector * kWidth;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) store(to + v * kWidth, kDotPairs<T> ? sum[r][v] * scale : sum[r][v]);
    }
  }
};

// A row of queries as its scores take it.
template <typename T>
inline void query_row_of(const T* query, int head_dim, float scale, float* to) {
  to[query_row<T>(head_dim) - 1] = 0;
  if constexpr (kDotPairs<T>) {
    __builtin_memcpy(to, query, static_cast<std::size_t>(head_dim) * sizeof(T));
  } else {
    for_vectors(head_dim, [=](auto load, auto store) { store(to, load(query) * scale); });
  }
}

}  // namespace tempora::TEMPORA_ISA
