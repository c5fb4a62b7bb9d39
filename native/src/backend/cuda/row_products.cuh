// What a block has of a launch of products.
#pragma once

#include "device.cuh"
#include "row_products.h"

namespace tempora::device {

struct ProductBlock {
  int product;  // whose numbers are all.of[product]
  int first_row, first_output;
  int split;       // 0 where the block takes them all
  int begin, end;  // inputs

  // A product's tiles of rows are fastest, then its tiles of outputs, then its splits.
  template <int tile_rows, int tile_outputs>
  __device__ static ProductBlock of(const RowProducts& all) {
    ProductBlock block;
    block.product = 0;
    unsigned at = blockIdx.x;
#pragma unroll
    for (int i = 1; i < kMostProducts; ++i) {
      if (blockIdx.x < all.of[i - 1].end_block) continue;
      block.product = i;
      at = blockIdx.x - all.of[i - 1].end_block;
    }
    const RowProductNumbers& n = all.of[block.product];
    const unsigned row_tiles = (all.rows + tile_rows - 1) / tile_rows;
    const unsigned output_tiles = (n.outputs + tile_outputs - 1) / tile_outputs;
    block.first_row = static_cast<int>(at % row_tiles) * tile_rows;
    block.first_output = static_cast<int>(at / row_tiles % output_tiles) * tile_outputs;
    block.split = static_cast<int>(at / row_tiles / output_tiles);
    block.begin = block.split * n.split_inputs;
    block.end = n.partial == nullptr ? all.inputs : min(all.inputs, block.begin + n.split_inputs);
    return block;
  }
};

}  // namespace tempora::device
