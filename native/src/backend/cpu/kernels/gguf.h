// Numbers of GGUF's blocks (backend/gguf_blocks.h), as f32 or bf16.
#pragma once

#include "../../weight_format.h"
#include "kernels.h"

namespace tempora {

struct GgufKernels {
  // to [32 · groups] = the numbers of groups [first, first + groups). Indexed by DType.
  void (*dequantise[2])(WeightFormat format, const std::uint8_t* blocks, std::int64_t first, std::int64_t groups,
                        void* to);
};

TEMPORA_DECLARE_KERNELS(GgufKernels, gguf_kernels)

}  // namespace tempora
