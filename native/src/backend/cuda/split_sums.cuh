// A row product of few rows leaves sums by splits of its inputs, which whatever reads its result next adds up.
#pragma once

#include "split_sums.h"
#include "vectors.cuh"

namespace tempora::device {

struct SplitView {
  const float* parts;  // f32 [splits, rows, outputs]; null: the product is in its place
  int splits;
  std::int64_t size;  // of one split

  explicit SplitView(const SplitSums& sums)
      : parts(static_cast<const float*>(sums.parts.data())),
        splits(sums.splits),
        size(static_cast<std::int64_t>(sums.rows) * sums.outputs) {}

  // Σ over splits in order, of the n elements from `at` on.
  template <int n>
  __device__ void sum(std::int64_t at, float (&to)[n]) const {
#pragma unroll
    for (int i = 0; i < n; ++i) to[i] = 0;
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
      float part[n];
      load_vector(parts + split * size + at, part);
#pragma unroll
      for (int i = 0; i < n; ++i) to[i] += part[i];
    }
  }
};

}  // namespace tempora::device
