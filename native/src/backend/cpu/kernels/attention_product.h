// The inner products of attention: c[m, n] (+)= a[m, k] · b[k, n] on blocks that lie in the caches. c is in f32; a and
// b are in words of 32 bits that hold kPerWord numbers of consecutive k: one in f32, or two in bf16.
//
// Words of a are broadcast, rows of b are vectors. Every element of c is one chain of multiply-adds over ascending
// k, whatever the tile it falls in: its bits do not depend on m or n.
#pragma once

#include "exponentials.h"

namespace tempora::TEMPORA_ISA {

// A tile is tile_rows × vectors accumulators: as many as the registers hold beside the operands.
#if defined(__AVX512F__)
constexpr int kTileVectors = 4;
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kTileVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 8; }
#endif

// The last rows, fewer than a whole tile.
template <int kRows, int kVectors, typename Tiles>
inline void for_last_rows(const Tiles& tiles, std::int64_t rows, std::int64_t row, int vector) {
  if constexpr (kRows > 0) {
    if (rows - row == kRows) {
      tiles.template compute<kRows, kVectors>(row, vector);
    } else {
      for_last_rows<kRows - 1, kVectors>(tiles, rows, row, vector);
    }
  }
}

// Calls tiles.compute<tile rows, tile vectors>(row, vector) for all of [0, rows) and [vector, vectors).
template <int kVectors = kTileVectors, typename Tiles>
inline void for_tiles(const Tiles& tiles, std::int64_t rows, int vector, int vectors) {
  constexpr int kRows = tile_rows(kVectors);
  for (; vector + kVectors <= vectors; vector += kVectors) {
    std::int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) tiles.template compute<kRows, kVectors>(row, vector);
    for_last_rows<kRows - 1, kVectors>(tiles, rows, row, vector);
  }
  if constexpr (kVectors > 1) {
    if (vector < vectors) for_tiles<kVectors - 1>(tiles, rows, vector, vectors);
  }
}

template <int kPerWord>
struct Words {};

// Words are declared as float; where they are pairs, only their bits count. Strides and k are in words.
struct BlockProduct {
  const float* a;
  std::int64_t a_row, a_step;  // strides of m and k
  const float* b;
  std::int64_t b_step;  // stride of k
  float* c;
  std::int64_t c_row;
  std::int64_t m;
  int n_vectors;
  std::int64_t k;
  bool add;
};

inline VecF multiply_add(float element, VecF columns, VecF sum, Words<1>) { return sum + element * columns; }

#if defined(__AVX512BF16__)
// bf16 [16] of f32 [16], rounded to nearest even.
inline __m256i to_bf16(VecF x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x))); }

inline VecF multiply_add(float pair, VecF columns, VecF sum, Words<2>) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof bits);
  return reinterpret_cast<VecF>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                 reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits)),
                                                 reinterpret_cast<__m512bh>(columns)));
}
#endif

template <int kPerWord>
struct BlockTiles {
  const BlockProduct& product;

  template <int kRows, int kVectors>
  void compute(std::int64_t row, int vector) const;
};

template <int kPerWord>
template <int kRows, int kVectors>
inline void BlockTiles<kPerWord>::compute(std::int64_t row, int vector) const {
  const BlockProduct& p = product;
  const float* left[kRows];
  VecF sum[kRows][kVectors];
  float* to = p.c + row * p.c_row + vector * kWidth;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    left[r] = p.a + (row + r) * p.a_row;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = p.add ? load(to + r * p.c_row + v * kWidth) : VecF{};
  }
  const float* right = p.b + vector * kWidth;
  std::int64_t at = 0;
  for (std::int64_t step = 0; step < p.k; ++step, right += p.b_step, at += p.a_step) {
    VecF columns[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) columns[v] = load(right + v * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float element = left[r][at];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(element, columns[v], sum[r][v], Words<kPerWord>{});
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(to + r * p.c_row + v * kWidth, sum[r][v]);
  }
}

template <int kPerWord>
inline void multiply(const BlockProduct& p) {
  for_tiles(BlockTiles<kPerWord>{p}, p.m, 0, p.n_vectors);
}

template <int... kLane>
struct LaneList {
  // The pair's exchange at distance kStep.
  template <int kStep>
  static VecF first(VecF a, VecF b) {
    return shuffle<((kLane & kStep) != 0 ? kWidth + kLane - kStep : kLane)...>(a, b);
  }
  template <int kStep>
  static VecF second(VecF a, VecF b) {
    return shuffle<((kLane & kStep) != 0 ? kWidth + kLane : kLane + kStep)...>(a, b);
  }
};

#if defined(__AVX512F__)
using Lanes = LaneList<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX2__)
using Lanes = LaneList<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using Lanes = LaneList<0, 1, 2, 3>;
#endif

// Rows become columns, x[i][j] -> x[j][i], by exchanges at distances 1, 2, 4, ...
template <int kStep = 1>
inline void transpose(VecF (&x)[kWidth]) {
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; ++i) {
    if ((i & kStep) != 0) continue;
    const VecF a = x[i], b = x[i + kStep];
    x[i] = Lanes::template first<kStep>(a, b);
    x[i + kStep] = Lanes::template second<kStep>(a, b);
  }
  if constexpr (kStep * 2 < kWidth) transpose<kStep * 2>(x);
}

// Copies one row of n elements to f32, with zeros up to the next whole vector.
template <typename T>
inline void widen_row(const T* from, std::int64_t n, float* to) {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(to + i, load(from + i));
  if (i < n) store(to + i, load_part(from + i, n - i));
}

constexpr std::int64_t whole_vectors(std::int64_t n) { return (n + kWidth - 1) / kWidth * kWidth; }

}  // namespace tempora::TEMPORA_ISA
