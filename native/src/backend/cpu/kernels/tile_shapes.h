// What the eight tile registers of AMX hold, as ldtilecfg reads it (palette 1: 16 rows of 64 bytes each, at most).
#pragma once

#include <cstdint>

namespace tempora::TEMPORA_ISA {

constexpr int kTileRegisters = 8;
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;
constexpr int kTileColumns = kTileRowBytes / 4;  // f32 sums of a row
constexpr int kTileDepth = kTileRowBytes / 2;    // bf16 numbers of a row: k of one multiplication

struct alignas(64) TileShapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, int tile_rows) {
    row_bytes[tile] = kTileRowBytes;
    rows[tile] = static_cast<std::uint8_t>(tile_rows);
  }
};
static_assert(sizeof(TileShapes) == 64);

}  // namespace tempora::TEMPORA_ISA
