// Numbers of an NF4 weight (backend/nf4.h), as f32 or bf16.
#pragma once

#include "kernels.h"

namespace tempora {

struct Nf4View {
  const std::uint8_t* codes;
  const std::uint8_t* maxima;
  const float* scales;
  float offset;
  const float* map;  // [256] what the maxima's codes stand for
  std::int64_t size;
};

struct Nf4Kernels {
  // to [end - begin] = numbers [begin, end). Indexed by DType.
  void (*dequantise[2])(const Nf4View& view, std::int64_t begin, std::int64_t end, void* to);
};

TEMPORA_DECLARE_KERNELS(Nf4Kernels, nf4_kernels)

}  // namespace tempora
