// Products of f32 blocks of which one side is narrow, for adapters: c [m,n] (+)= a · b, where a's element (i, k) lies
// at i · a_row + k · a_step. Every element of c is one chain of multiply-adds over ascending k.
#pragma once

#include "kernels.h"

namespace tempora {

constexpr std::int64_t kNarrowUnit = 16;  // n is a multiple of it

struct NarrowProduct {
  const float* a;
  std::int64_t a_row, a_step;
  const float* b;  // [k, n]
  std::int64_t b_row;
  float* c;
  std::int64_t c_row;
  std::int64_t m, n, k;
  bool add;
};

struct NarrowKernels {
  void (*multiply)(const NarrowProduct& product);
};

TEMPORA_DECLARE_KERNELS(NarrowKernels, narrow_kernels)

}  // namespace tempora
