#include "gguf.h"

#include "../../gguf_blocks.h"
#include "simd.h"

namespace tempora::TEMPORA_ISA {
namespace {

template <typename T>
void dequantise(WeightFormat format, const std::uint8_t* blocks, std::int64_t first, std::int64_t groups, void* data) {
  T* to = static_cast<T*>(data);
  with_gguf_format(format, [&]<WeightFormat known>() {
    for (std::int64_t group = 0; group < groups; ++group) {
      float numbers[kGgufGroup];
      decode_gguf_group<known>(blocks, first + group, numbers);
      for (int i = 0; i < kGgufGroup; ++i) store_one(to + group * kGgufGroup + i, numbers[i]);
    }
  });
}

}  // namespace

const GgufKernels gguf_kernels = {{dequantise<float>, dequantise<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
