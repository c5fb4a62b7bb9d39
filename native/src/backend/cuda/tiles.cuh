// Tiles of bf16 in shared memory, and the fragments that a warp takes from them.
#pragma once

#include <mma.cuh>

#include "device.cuh"

namespace tempora::device {

constexpr int kTileThreads = 128;
constexpr int kTileWarps = kTileThreads / kWarp;

// What every device since sm_80 gives a block that asks for it: those for desktops 99 KiB, those for servers more.
constexpr std::size_t kBlockShared = std::size_t{99} << 10;

// Stages of a ring of copies: four, or as many as there is room for.
constexpr int ring_stages(std::size_t stage_bytes) {
  return kBlockShared / stage_bytes < 4 ? static_cast<int>(kBlockShared / stage_bytes) : 4;
}

// Rows are padded by 16 bytes: then eight rows of an 8 x 8 matrix lie in different banks (C is a multiple of 16, so a
// row is an odd number of 16-byte pieces).
template <int C>
constexpr int kTileStride = C + 8;
template <int C>
constexpr std::size_t tile_bytes(int rows) {
  return static_cast<std::size_t>(rows) * kTileStride<C> * sizeof(bf16);
}

// Begins to copy rows [first, first + rows) of a matrix whose row t starts at from + t * stride; rows from `end` on are
// zeros. By all threads of the block.
template <int C, int rows>
__device__ inline void copy_tile(bf16* to, const bf16* from, std::int64_t stride, int first, int end) {
  constexpr int kPieces = C / 8;
  for (int i = threadIdx.x; i < rows * kPieces; i += kTileThreads) {
    const int row = i / kPieces, column = i % kPieces * 8;
    const bool there = first + row < end;
    copy_async(to + row * kTileStride<C> + column, from + (there ? first + row : 0) * stride + column, there);
  }
}

// A's fragment: rows [row, row + 16), columns [column, column + 16) of a tile.
template <int C>
__device__ inline void load_a(std::uint32_t (&a)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(a, tile + (row + lane % 16) * kTileStride<C> + column + lane / 16 * 8);
}

// B's fragments for 16 columns n of the product, where the tile's rows are those n and its columns the sums' k: b[0],
// b[1] for n in [row, row + 8), b[2], b[3] for the next eight.
template <int C>
__device__ inline void load_b(std::uint32_t (&b)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * kTileStride<C> + column + lane / 8 % 2 * 8);
}

// The same where the tile's rows are the sums' k and its columns n.
template <int C>
__device__ inline void load_b_transposed(std::uint32_t (&b)[4], const bf16* tile, int row, int column) {
  const int lane = threadIdx.x % kWarp;
  load_matrices_transposed(b, tile + (row + lane % 16) * kTileStride<C> + column + lane / 16 * 8);
}

}  // namespace tempora::device
