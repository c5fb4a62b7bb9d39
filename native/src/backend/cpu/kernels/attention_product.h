// The inner products of attention: c[m, n] (+)= a[m, k] · b[k, n] on f32 blocks that lie in the caches.
//
// Elements of a are broadcast, rows of b are vectors. Every element of c is one chain of multiply-adds over ascending
// k, whatever the tile it falls in: its bits do not depend on m or n.
#pragma once

#include "simd.h"

namespace tempora::TEMPORA_ISA {

// A tile is tile_rows × vectors accumulators: as many as the registers hold beside the operands.
#if defined(__AVX512F__)
constexpr int kTileVectors = 4;
constexpr int tile_rows(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kTileVectors = 2;
constexpr int tile_rows(int vectors) { return vectors == 2 ? 6 : 8; }
#endif

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

template <int kRows, int kVectors>
inline void product_tile(const BlockProduct& p, std::int64_t row, int vector) {
  const float* a[kRows];
  VecF sum[kRows][kVectors];
  float* c = p.c + row * p.c_row + vector * kWidth;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    a[r] = p.a + (row + r) * p.a_row;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = p.add ? load(c + r * p.c_row + v * kWidth) : VecF{};
  }
  const float* b = p.b + vector * kWidth;
  std::int64_t step = 0;
  for (std::int64_t k = 0; k < p.k; ++k, b += p.b_step, step += p.a_step) {
    VecF right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float left = a[r][step];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(c + r * p.c_row + v * kWidth, sum[r][v]);
  }
}

// The last rows, fewer than a whole tile.
template <int kRows, int kVectors>
inline void product_rest(const BlockProduct& p, std::int64_t row, int vector) {
  if constexpr (kRows > 0) {
    if (p.m - row == kRows) {
      product_tile<kRows, kVectors>(p, row, vector);
    } else {
      product_rest<kRows - 1, kVectors>(p, row, vector);
    }
  }
}

template <int kVectors>
inline void product_column(const BlockProduct& p, int vector) {
  constexpr int kRows = tile_rows(kVectors);
  std::int64_t row = 0;
  for (; row + kRows <= p.m; row += kRows) product_tile<kRows, kVectors>(p, row, vector);
  product_rest<kRows - 1, kVectors>(p, row, vector);
}

template <int kVectors>
inline void product_columns(const BlockProduct& p, int vector) {
  for (; vector + kVectors <= p.n_vectors; vector += kVectors) product_column<kVectors>(p, vector);
  if constexpr (kVectors > 1) {
    if (vector < p.n_vectors) product_columns<kVectors - 1>(p, vector);
  }
}

inline void multiply(const BlockProduct& p) { product_columns<kTileVectors>(p, 0); }

// 2^x for x <= 128, relative error below 2e-7; 0 below 2^-125, NaN for NaN.
inline VecF exp2(VecF x) {
  const VecF magic = splat(12582912.0f);  // 1.5 · 2^23: adding it rounds to an integer
  const VecF clamped = x < -125.0f ? splat(-125.0f) : x > 127.0f ? splat(127.0f) : x;
  const VecF shifted = clamped + magic;
  const VecF r = clamped - (shifted - magic);
  // Interpolates 2^r at the Chebyshev nodes of [-1/2, 1/2].
  VecF p = splat(1.5461444e-4f);
  p = p * r + 1.3400428e-3f;
  p = p * r + 9.6180567e-3f;
  p = p * r + 5.5503272e-2f;
  p = p * r + 2.4022651e-1f;
  p = p * r + 6.9314721e-1f;
  p = p * r + 1.0f;
  const VecI n = reinterpret_cast<VecI>(shifted) - reinterpret_cast<VecI>(magic);
  const VecF value = p * reinterpret_cast<VecF>((n + 127) << 23);
  return x < -125.0f ? VecF{} : value;
}

template <int... kLane>
struct LaneList {
  // Lanes, in the concatenation of two vectors, of the pair's exchange at distance kStep.
  template <int kStep>
  static constexpr VecI first() {
    return VecI{((kLane & kStep) != 0 ? kWidth + kLane - kStep : kLane)...};
  }
  template <int kStep>
  static constexpr VecI second() {
    return VecI{((kLane & kStep) != 0 ? kWidth + kLane : kLane + kStep)...};
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
    x[i] = __builtin_shuffle(a, b, Lanes::template first<kStep>());
    x[i + kStep] = __builtin_shuffle(a, b, Lanes::template second<kStep>());
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
