// Packed products with weights of bf16 by AMX's tiles. A panel is as the vector kernels' is: 32 columns in pairs of k,
// so that two tiles lie beside each other in it.
#pragma once

#include "packed.h"
#include "tile_product.h"

namespace tempora::TEMPORA_ISA {

// write(sums f32 [rows, stride], stride, rows, columns, row, column) takes the sums of `columns` columns from there on.
template <int kPanelColumns, typename Write>
class PanelTiles {
  static_assert(kPanelColumns == 2 * kTileColumns);

 public:
  PanelTiles(const PackedProduct& product, Write write) : p_(product), write_(write) {}

  void multiply(std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; panel += 2) {
      const bool two = panel + 1 < end;
      for (std::int64_t row = 0; row < p_.rows; row += kTileBlockRows) {
        const std::int64_t rows = p_.rows - row < kTileBlockRows ? p_.rows - row : kTileBlockRows;
        registers_.shape_for(rows);
        if (rows > kTileRows) {
          tall(row, rows, panel);
          if (two) tall(row, rows, panel + 1);
        } else {
          flat(row, rows, panel, two);
        }
      }
    }
  }

 private:
  TileBlock block(std::int64_t row, std::int64_t columns) {
    TileBlock b{};
    b.left = static_cast<const char*>(p_.x) + row * p_.row_x * kBytes;
    b.row_left = p_.row_x * kBytes;
    b.row_right = kPanelColumns * 2 * kBytes;
    b.right_step = kTileDepth / 2 * b.row_right;
    b.sums = reinterpret_cast<char*>(sums_);
    b.row_sums = columns * static_cast<std::int64_t>(sizeof(float));
    b.steps = p_.k / kTileDepth;
    return b;
  }

  const char* panel_at(std::int64_t panel) const {
    return static_cast<const char*>(p_.panels) + panel * p_.k * kPanelColumns * kBytes;
  }

  void tall(std::int64_t row, std::int64_t rows, std::int64_t panel) {
    TileBlock b = block(row, kTallColumns);
    b.right[0] = panel_at(panel);
    b.right[1] = b.right[0] + kTileRowBytes;
    multiply_tall(b);
    write_(sums_, kTallColumns, rows, kPanelColumns, row, panel * kPanelColumns);
  }

  // The last panel by itself is multiplied twice: which block a column falls in must not decide its bits.
  void flat(std::int64_t row, std::int64_t rows, std::int64_t panel, bool two) {
    TileBlock b = block(row, kFlatColumns);
    b.right[0] = panel_at(panel);
    b.right[1] = b.right[0] + kTileRowBytes;
    b.right[2] = two ? panel_at(panel + 1) : b.right[0];
    b.right[3] = b.right[2] + kTileRowBytes;
    multiply_flat(b);
    write_(sums_, kFlatColumns, rows, two ? kFlatColumns : kPanelColumns, row, panel * kPanelColumns);
  }

  static constexpr std::int64_t kBytes = 2;  // of a bf16

  const PackedProduct& p_;
  Write write_;
  TileRegisters registers_;
  alignas(64) float sums_[kTileBlockRows * kTallColumns];
};

}  // namespace tempora::TEMPORA_ISA
