// Which elements of a matrix are dropped, in kernels: those that the CPU's drop.
#pragma once

#include "../../forest/random.h"
#include "device.cuh"

namespace tempora::device {

struct DropoutView {
  std::uint64_t key;
  std::int64_t first_row;
  std::uint32_t threshold;
  float scale;

  explicit DropoutView(const Dropout& from)
      : key(from.key), first_row(from.first_row), threshold(from.threshold()), scale(from.scale()) {}

  // Four neighbours of a row share a word, of 16 bits each.
  __device__ std::uint64_t word(std::int64_t row, int column) const {
    return combine_key(combine_key(key, static_cast<std::uint64_t>(first_row + row)),
                       static_cast<std::uint64_t>(column / 4));
  }
  __device__ bool keeps(std::uint64_t word, int column) const {
    return (static_cast<std::uint32_t>(word >> (16 * (column % 4))) & 0xffffu) >= threshold;
  }
  // Those four, scaled.
  __device__ void keep(float (&x)[4], std::int64_t row, int column) const {
    if (threshold == 0) return;
    const std::uint64_t bits = word(row, column);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = keeps(bits, i) ? x[i] * scale : 0.0f;
  }
};

}  // namespace tempora::device
