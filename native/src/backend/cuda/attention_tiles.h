// Tree attention of bf16 on tensor cores, for heads of 64, 96 and 128 dimensions.
#pragma once

#include <cuda_runtime.h>

#include "../backend.h"

namespace tempora {

// A plan's TilePairs and AttentionTiles (attention_plan.h) on the device.
struct DevicePairs {
  Buffer start, pair, order;
  unsigned tiles = 0;
};
struct DeviceTiles {
  Buffer range, position, tile_position;
  DevicePairs wide, queries, keys;
};

// Whether the kernels know a head of that size. Theirs are 16-byte copies, which a matrix must be aligned to.
bool tiles_know(const AttentionShape& shape, DType dtype);

void attend_by_tiles(cudaStream_t stream, const DeviceTiles& tiles, const AttentionShape& shape, const Matrix& q,
                     const Matrix& k, const Matrix& v, const Matrix& out, float* lse);

struct TileGradients {
  Matrix d_out, d_q, d_k, d_v;
  float* delta;  // f32 [T, H], scratch
};
void attend_by_tiles_backward(cudaStream_t stream, const DeviceTiles& tiles, const AttentionShape& shape,
                              const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, const float* lse,
                              const TileGradients& gradients);

}  // namespace tempora
