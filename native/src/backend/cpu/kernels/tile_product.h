// Products of bf16 by AMX's tiles: blocks of up to 32 rows, whose sums fill four tiles.
//
// Every sum is built from steps of kTileDepth numbers of k in their order, whatever the block it falls in: its bits do
// not depend on the other rows and columns.
#pragma once

#include <tile_instructions.h>

namespace tempora::TEMPORA_ISA {

constexpr std::int64_t kTileBlockRows = 2 * kTileRows;
// Of a block of more than kTileRows rows, and of a smaller one: four sums in any case, as a sum waits for itself.
constexpr int kTallColumns = 2 * kTileColumns;
constexpr int kFlatColumns = 4 * kTileColumns;

// The shapes for blocks of so many rows; loaded again only where they differ. Registers 0 to 3 are sums, 4 and 5 rows
// of the left matrix, 6 and 7 columns of the right one.
class TileRegisters {
 public:
  TileRegisters() = default;
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
  ~TileRegisters() {
    if (rows_ > 0) release_tiles();
  }

  bool flat() const { return rows_ <= kTileRows; }

  void shape_for(std::int64_t rows) {
    if (rows == rows_) return;
    rows_ = rows;
    const bool tall = rows > kTileRows;
    const int first = static_cast<int>(tall ? kTileRows : rows),
              second = static_cast<int>(tall ? rows - kTileRows : rows);
    TileShapes shapes;
    shapes.set(0, first);
    shapes.set(1, first);
    shapes.set(2, second);
    shapes.set(3, second);
    shapes.set(4, first);
    shapes.set(5, second);
    shapes.set(6, kTileRows);
    shapes.set(7, kTileRows);
    load_tile_shapes(shapes);
  }

 private:
  std::int64_t rows_ = 0;
};

// sums f32 [rows, columns] (+)= left [rows, depth] · right. Rows of left and sums lie row_left and row_sums bytes
// apart; pair rows of right [kTileDepth / 2] row_right bytes. right[i] is where the i-th kTileColumns columns begin, of
// which a step of k takes right_step bytes.
struct TileBlock {
  const char* left;
  std::int64_t row_left;
  const char* right[4];
  std::int64_t row_right, right_step;
  char* sums;
  std::int64_t row_sums;
  std::int64_t steps;  // depth / kTileDepth
  bool add;
};

inline void begin_sums(const TileBlock& b, std::int64_t second, std::int64_t third, std::int64_t fourth) {
  if (b.add) {
    tile_load<0>(b.sums, b.row_sums);
    tile_load<1>(b.sums + second, b.row_sums);
    tile_load<2>(b.sums + third, b.row_sums);
    tile_load<3>(b.sums + fourth, b.row_sums);
  } else {
    tile_zero<0>();
    tile_zero<1>();
    tile_zero<2>();
    tile_zero<3>();
  }
}

inline void end_sums(const TileBlock& b, std::int64_t second, std::int64_t third, std::int64_t fourth) {
  tile_store<0>(b.sums, b.row_sums);
  tile_store<1>(b.sums + second, b.row_sums);
  tile_store<2>(b.sums + third, b.row_sums);
  tile_store<3>(b.sums + fourth, b.row_sums);
}

// More than kTileRows rows by kTallColumns.
inline void multiply_tall(const TileBlock& b) {
  const std::int64_t below = kTileRows * b.row_sums;
  begin_sums(b, kTileRowBytes, below, below + kTileRowBytes);
  const char *left = b.left, *below_left = b.left + kTileRows * b.row_left;
  for (std::int64_t i = 0, at = 0; i < b.steps; ++i, at += b.right_step) {
    tile_load<4>(left + i * kTileRowBytes, b.row_left);
    tile_load<6>(b.right[0] + at, b.row_right);
    tile_multiply<0, 4, 6>();
    tile_load<7>(b.right[1] + at, b.row_right);
    tile_multiply<1, 4, 7>();
    tile_load<5>(below_left + i * kTileRowBytes, b.row_left);
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
  end_sums(b, kTileRowBytes, below, below + kTileRowBytes);
}

// Up to kTileRows rows by kFlatColumns.
inline void multiply_flat(const TileBlock& b) {
  begin_sums(b, kTileRowBytes, 2 * kTileRowBytes, 3 * kTileRowBytes);
  for (std::int64_t i = 0, at = 0; i < b.steps; ++i, at += b.right_step) {
    tile_load<4>(b.left + i * kTileRowBytes, b.row_left);
    tile_load<6>(b.right[0] + at, b.row_right);
    tile_multiply<0, 4, 6>();
    tile_load<7>(b.right[1] + at, b.row_right);
    tile_multiply<1, 4, 7>();
    tile_load<6>(b.right[2] + at, b.row_right);
    tile_multiply<2, 4, 6>();
    tile_load<7>(b.right[3] + at, b.row_right);
    tile_multiply<3, 4, 7>();
  }
  end_sums(b, kTileRowBytes, 2 * kTileRowBytes, 3 * kTileRowBytes);
}

}  // namespace tempora::TEMPORA_ISA
