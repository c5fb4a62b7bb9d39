// AMX's tile instructions in C++, for machines that lack them: the functions of kernels/amx/tile_instructions.h with
// the arithmetic and the faults of Intel's Software Developer's Manual, volume 2. A fault ends the process.
#pragma once

#include "backend/cpu/kernels/simd.h"
#include "backend/cpu/kernels/tile_shapes.h"

namespace tempora::TEMPORA_ISA {

struct EmulatedTiles {
  bool configured = false;
  TileShapes shapes;
  alignas(64) unsigned char data[kTileRegisters][kTileRows][kTileRowBytes];
};
inline thread_local EmulatedTiles emulated_tiles;

inline void fault_unless(bool holds) {
  if (!holds) __builtin_trap();
}

// Zeroes all registers, as configuring does.
inline void load_tile_shapes(const TileShapes& shapes) {
  fault_unless(shapes.palette == 1);
  for (const std::uint8_t byte : shapes.reserved) fault_unless(byte == 0);
  for (int tile = 0; tile < 16; ++tile) {
    const bool there = tile < kTileRegisters;
    fault_unless(shapes.rows[tile] <= (there ? kTileRows : 0) && shapes.row_bytes[tile] <= (there ? kTileRowBytes : 0));
    fault_unless((shapes.rows[tile] == 0) == (shapes.row_bytes[tile] == 0));
  }
  emulated_tiles.configured = true;
  emulated_tiles.shapes = shapes;
  __builtin_memset(emulated_tiles.data, 0, sizeof emulated_tiles.data);
}

// What the registers hold afterwards must not be relied on: bytes that make NaNs.
inline void release_tiles() {
  emulated_tiles.configured = false;
  __builtin_memset(emulated_tiles.data, 0xFF, sizeof emulated_tiles.data);
}

template <int kTile>
inline int configured_rows() {
  static_assert(kTile >= 0 && kTile < kTileRegisters);
  fault_unless(emulated_tiles.configured && emulated_tiles.shapes.rows[kTile] > 0);
  return emulated_tiles.shapes.rows[kTile];
}

template <int kTile>
inline void tile_zero() {
  configured_rows<kTile>();
  __builtin_memset(emulated_tiles.data[kTile], 0, sizeof emulated_tiles.data[kTile]);
}

// Rows past the configured ones become zeros, as do bytes past a row's.
template <int kTile>
inline void tile_load(const void* from, std::int64_t stride) {
  const int rows = configured_rows<kTile>();
  tile_zero<kTile>();
  for (int r = 0; r < rows; ++r) {
    __builtin_memcpy(emulated_tiles.data[kTile][r], static_cast<const char*>(from) + r * stride,
                     emulated_tiles.shapes.row_bytes[kTile]);
  }
}

template <int kTile>
inline void tile_store(void* to, std::int64_t stride) {
  const int rows = configured_rows<kTile>();
  for (int r = 0; r < rows; ++r) {
    __builtin_memcpy(static_cast<char*>(to) + r * stride, emulated_tiles.data[kTile][r],
                     emulated_tiles.shapes.row_bytes[kTile]);
  }
}

// Numbers below the least normal one count as zero, in operands and results.
inline VecF flush_denormals(VecF x) {
  const VecU bits = reinterpret_cast<VecU>(x);
  return reinterpret_cast<VecF>((bits & 0x7F800000u) == 0 ? bits & 0x80000000u : bits);
}

// Even and odd numbers of k have a chain of fused multiply-adds each; their sum is added to what was there.
template <int kSums, int kLeft, int kRight>
inline void tile_multiply() {
  static_assert(kSums != kLeft && kSums != kRight && kLeft != kRight);
  const TileShapes& shapes = emulated_tiles.shapes;
  const int rows = configured_rows<kSums>();
  fault_unless(configured_rows<kLeft>() == rows && shapes.row_bytes[kLeft] / 4 == configured_rows<kRight>() &&
               shapes.row_bytes[kRight] == shapes.row_bytes[kSums]);
  for (int r = 0; r < rows; ++r) {
    for (int column = 0; column < kTileColumns; column += kWidth) {
      VecF chains[2] = {};
      for (int pair = 0; pair < shapes.row_bytes[kLeft] / 4; ++pair) {
        std::uint32_t left;
        VecU right;
        __builtin_memcpy(&left, emulated_tiles.data[kLeft][r] + pair * 4, sizeof left);
        __builtin_memcpy(&right, emulated_tiles.data[kRight][pair] + column * 4, sizeof right);
        const VecU a = left - VecU{};
        const VecF low = flush_denormals(reinterpret_cast<VecF>(a << 16)),
                   high = flush_denormals(reinterpret_cast<VecF>(a & 0xFFFF0000u));
        // A number times a bf16 number is exact but for its exponent: the fused form rounds once.
        chains[0] = flush_denormals(chains[0] + low * flush_denormals(reinterpret_cast<VecF>(right << 16)));
        chains[1] = flush_denormals(chains[1] + high * flush_denormals(reinterpret_cast<VecF>(right & 0xFFFF0000u)));
      }
      unsigned char* at = emulated_tiles.data[kSums][r] + column * 4;
      VecF sum;
      __builtin_memcpy(&sum, at, sizeof sum);
      sum = flush_denormals(flush_denormals(sum) + flush_denormals(chains[0] + chains[1]));
      __builtin_memcpy(at, &sum, sizeof sum);
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
