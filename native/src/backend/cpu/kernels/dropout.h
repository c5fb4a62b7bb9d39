// Dropout of one row. Arrays are indexed by DType.
#pragma once

#include "kernels.h"

namespace tempora {

// Element k is dropped where its 16 bits, number k % 4 of combine_key(key, k / 4), are below `threshold`.
struct DropoutRow {
  std::uint64_t key = 0;
  std::uint32_t threshold = 0;  // 0: nothing is dropped
  float scale = 1;              // of what is kept
};

struct DropoutKernels {
  void (*forward[2])(const void* x, const DropoutRow& row, float* out, std::int64_t n);
  // d_x += ...
  void (*backward[2])(const float* d_out, const DropoutRow& row, void* d_x, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(DropoutKernels, dropout_kernels)

}  // namespace tempora
