// A product of attention with its operands rounded to bf16, by AMX's tiles.
#pragma once

#include "attention_product.h"
#include "tile_product.h"

namespace tempora::TEMPORA_ISA {

// k at a time: what is converted of both operands stays in the first cache.
constexpr std::int64_t kTileProductDepth = 128;

// to bf16 [rows, depth] = a [rows, k], zeros past k. Where a's columns are adjacent, vectors run along k; else a block
// of 16 by 16 at a time is turned: then up to 15 numbers behind a column's last are read.
inline void round_left(const float* a, std::int64_t a_row, std::int64_t a_step, std::int64_t rows, std::int64_t k,
                       std::int64_t depth, Bf16* to) {
  if (a_step == 1) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < depth; c += kWidth) {
        const std::int64_t left = k - c;
        const VecF x = left >= kWidth ? load(a + r * a_row + c)
                       : left > 0     ? load_part(a + r * a_row + c, left)
                                      : VecF{};
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + r * depth + c), to_bf16(x));
      }
    }
    return;
  }
  for (std::int64_t r = 0; r < rows; r += kWidth) {
    const std::int64_t count = rows - r < kWidth ? rows - r : kWidth;
    for (std::int64_t c = 0; c < depth; c += kWidth) {
      VecF x[kWidth];
      for (std::int64_t i = 0; i < kWidth; ++i) x[i] = c + i < k ? load(a + r + (c + i) * a_step) : VecF{};
      transpose(x);
      for (std::int64_t i = 0; i < count; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (r + i) * depth + c), to_bf16(x[i]));
      }
    }
  }
}

// to bf16 [depth / 2][kFlatColumns][2] = b [k, vectors · 16] in pairs of k, zeros past k and past the vectors.
inline void round_right(const float* b, std::int64_t b_step, std::int64_t k, int vectors, std::int64_t depth,
                        Bf16* to) {
  for (std::int64_t pair = 0; pair < depth / 2; ++pair) {
    for (int v = 0; v < kFlatColumns / kWidth; ++v) {
      VecU bits[2];
      for (int half = 0; half < 2; ++half) {
        const std::int64_t row = 2 * pair + half;
        const VecF x = row < k && v < vectors ? load(b + row * b_step + v * kWidth) : VecF{};
        bits[half] = reinterpret_cast<VecU>(_mm512_maskz_cvtepu16_epi32(0xFFFF, to_bf16(x)));
      }
      const VecU both = bits[0] | (bits[1] << 16);
      __builtin_memcpy(to + (pair * kFlatColumns + v * kWidth) * 2, &both, sizeof both);
    }
  }
}

class AttentionTiles {
 public:
  explicit AttentionTiles(const BlockProduct& product) : p_(product) {}

  void multiply() {
    for (int vector = 0; vector < p_.n_vectors; vector += kVectors) {
      vector_ = vector;
      vectors_ = p_.n_vectors - vector < kVectors ? p_.n_vectors - vector : kVectors;
      for (std::int64_t k = 0; k < p_.k; k += kTileProductDepth) multiply_depth(k);
    }
  }

 private:
  static constexpr int kVectors = kFlatColumns / kWidth;

  void multiply_depth(std::int64_t first) {
    const std::int64_t k = p_.k - first < kTileProductDepth ? p_.k - first : kTileProductDepth;
    depth_ = (k + kTileDepth - 1) / kTileDepth * kTileDepth;
    round_right(p_.b + first * p_.b_step + vector_ * kWidth, p_.b_step, k, vectors_, depth_, right_);
    for (std::int64_t row = 0; row < p_.m; row += kTileBlockRows) {
      const std::int64_t rows = p_.m - row < kTileBlockRows ? p_.m - row : kTileBlockRows;
      round_left(p_.a + row * p_.a_row + first * p_.a_step, p_.a_row, p_.a_step, rows, k, depth_, left_);
      registers_.shape_for(rows);
      if (rows <= kTileRows) {
        multiply_flat(block(0));
        add_sums(row, rows, 0, kFlatColumns, first > 0);
        continue;
      }
      for (int column = 0; column < vectors_ * kWidth; column += kTallColumns) {
        multiply_tall(block(column));
        add_sums(row, rows, column, kTallColumns, first > 0);
      }
    }
  }

  TileBlock block(int column) {
    TileBlock b{};
    b.left = reinterpret_cast<const char*>(left_);
    b.row_left = depth_ * static_cast<std::int64_t>(sizeof(Bf16));
    for (int i = 0; i < (registers_.flat() ? 4 : 2); ++i) {
      b.right[i] = reinterpret_cast<const char*>(right_ + (column + i * kTileColumns) * 2);
    }
    b.row_right = kFlatColumns * 2 * static_cast<std::int64_t>(sizeof(Bf16));
    b.right_step = kTileDepth / 2 * b.row_right;
    b.sums = reinterpret_cast<char*>(sums_);
    b.row_sums = (registers_.flat() ? kFlatColumns : kTallColumns) * static_cast<std::int64_t>(sizeof(float));
    b.steps = depth_ / kTileDepth;
    return b;
  }

  void add_sums(std::int64_t row, std::int64_t rows, int column, int columns, bool later) {
    const int vectors = columns / kWidth, first = vector_ + column / kWidth;
    for (std::int64_t r = 0; r < rows; ++r) {
      float* to = p_.c + (row + r) * p_.c_row + first * kWidth;
      for (int v = 0; v < vectors && first + v < vector_ + vectors_; ++v) {
        const VecF sum = load(sums_ + r * columns + v * kWidth);
        store(to + v * kWidth, p_.add || later ? load(to + v * kWidth) + sum : sum);
      }
    }
  }

  const BlockProduct& p_;
  TileRegisters registers_;
  int vector_ = 0, vectors_ = 0;
  std::int64_t depth_ = 0;
  alignas(64) Bf16 left_[kTileBlockRows * kTileProductDepth];
  alignas(64) Bf16 right_[kTileProductDepth * kFlatColumns];
  alignas(64) float sums_[kTileBlockRows * kTallColumns];
};

// A product of numbers that come from activations of type T.
template <typename T>
inline void multiply_as(const BlockProduct& p) {
  if constexpr (sizeof(T) == sizeof(Bf16)) {
    AttentionTiles(p).multiply();
  } else {
    multiply<1>(p);
  }
}

// Whether scores are scaled after their product, which is exact then, instead of the queries before it.
template <typename T>
constexpr bool kScalesScores = sizeof(T) == sizeof(Bf16);

}  // namespace tempora::TEMPORA_ISA
