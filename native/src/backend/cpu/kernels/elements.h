// Kernels that go element by element. Arrays are indexed by DType.
#pragma once

#include "kernels.h"

namespace tempora {

struct ElementKernels {
  void (*widen)(const std::uint16_t* from, float* to, std::int64_t n);
  void (*narrow)(const float* from, std::uint16_t* to, std::int64_t n);
  bool (*all_finite[2])(const void* x, std::int64_t n);
  void (*add[2])(void* x, const void* y, std::int64_t n);  // x += y
  void (*scale)(float* x, float factor, std::int64_t n);
  void (*swiglu[2])(const void* gate, const void* up, void* out, std::int64_t n);
  void (*swiglu_backward[2])(const void* gate, const void* up, const void* d_out, void* d_gate, void* d_up, void* out,
                             std::int64_t n);
  double (*sum_of_squares[2])(const void* x, std::int64_t n);
};

TEMPORA_DECLARE_KERNELS(ElementKernels, element_kernels)

}  // namespace tempora
