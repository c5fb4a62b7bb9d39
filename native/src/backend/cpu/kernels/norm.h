// RMSNorm over rows, sums over rows, rotation of heads. Arrays are indexed by DType.
#pragma once

#include "kernels.h"

namespace tempora {

struct NormKernels {
  // y [rows,cols] (the index's type, as weight) = x f32 · rstd · weight.
  void (*rms_norm[2])(const float* x, const void* weight, float eps, void* y, float* rstd, std::int64_t rows,
                      std::int64_t cols);
  // d_x += ..., partial_weight f32 [cols] += the rows' share of d_weight. In the weight's type, which is the index: y
  // again and the new d_x, each unless it is null.
  void (*rms_norm_backward[2])(const float* x, const void* weight, const float* rstd, const float* d_y, void* y,
                               float* d_x, void* rounded, float* partial_weight, std::int64_t rows, std::int64_t cols);
  // As the first two with x, weight, y and the gradients of one type; d_x is overwritten.
  void (*head_norm[2])(const void* x, const void* weight, float eps, void* y, float* rstd, std::int64_t rows,
                       std::int64_t cols);
  void (*head_norm_backward[2])(const void* x, const void* weight, const float* rstd, const void* d_y, void* d_x,
                                float* partial_weight, std::int64_t rows, std::int64_t cols);
  // x [rows,cols] += bias; first index the type of x, second that of bias.
  void (*add_bias[2][2])(void* x, const void* bias, std::int64_t rows, std::int64_t cols);
  // partial f32 [cols] += column sums of x [rows,cols].
  void (*column_sums[2])(const void* x, float* partial, std::int64_t rows, std::int64_t cols);
  // x [rows, heads · head_dim] rotated by table f32 [positions, head_dim]: of each position head_dim/2 cosines, then
  // as many sines, which are multiplied by `sign`.
  void (*rope[2])(void* x, const std::int32_t* positions, const float* table, float sign, std::int64_t rows, int heads,
                  int head_dim);
};

TEMPORA_DECLARE_KERNELS(NormKernels, norm_kernels)

}  // namespace tempora
