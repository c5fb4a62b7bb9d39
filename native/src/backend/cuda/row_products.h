// Products of one x with a few weights, as a launch takes them.
#pragma once

#include <cstdint>

namespace tempora {

constexpr int kMostProducts = 3;  // of a launch: those of q, k and v

// Tiles of a launch from which on a block takes all splits: partial sums of many rows cost more to write than they
// spread.
constexpr unsigned kEnoughTiles = 96;

// out [rows, outputs] (+)= x · weightᵀ, x and weight bf16 of 16-byte aligned rows of whole 16 bytes.
struct RowProductNumbers {
  const void* weight;
  void* out;
  std::int64_t out_row;  // elements from a row to the next
  int outputs;
  // Each element is Σ over splits of (Σ over the split's inputs in order), whatever the number of rows and whichever
  // weights are beside this one: where tiles are few, a block takes one split and another kernel adds them; where they
  // are many, a block walks all of them and adds in the same order.
  int split_inputs, splits;  // a multiple of 64; the last split may have fewer
  float* partial;            // null, or f32 [splits, rows, outputs], which gets their sums in out's place
  unsigned end_block;        // this product's blocks follow those of the one before, up to here
};

struct RowProducts {
  const void* x;
  std::int64_t x_row;
  int rows, inputs;
  bool accumulate;
  int count;
  RowProductNumbers of[kMostProducts];

  // In tiles of that size.
  unsigned tiles(const RowProductNumbers& n, int tile_rows, int tile_outputs) const {
    const auto parts = [](int size, int part) { return static_cast<unsigned>((size + part - 1) / part); };
    return parts(rows, tile_rows) * parts(n.outputs, tile_outputs);
  }
  unsigned tiles(int tile_rows, int tile_outputs) const {
    unsigned all = 0;
    for (int i = 0; i < count; ++i) all += tiles(of[i], tile_rows, tile_outputs);
    return all;
  }
  bool has_splits() const {
    for (int i = 0; i < count; ++i) {
      if (of[i].splits > 1) return true;
    }
    return false;
  }
  // Hands out blocks, and returns how many there are.
  unsigned number_blocks(int tile_rows, int tile_outputs) {
    unsigned blocks = 0;
    for (int i = 0; i < kMostProducts; ++i) {
      const unsigned slices = of[i].partial == nullptr ? 1 : static_cast<unsigned>(of[i].splits);
      if (i < count) blocks += tiles(of[i], tile_rows, tile_outputs) * slices;
      of[i].end_block = blocks;
    }
    return blocks;
  }
};

}  // namespace tempora
