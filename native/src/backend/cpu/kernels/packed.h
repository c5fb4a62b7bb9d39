// Products with packed weights, for generation. Every output element is one chain of multiply-adds over K in order,
// whatever the number of rows: a row's bits do not depend on the other rows.
//
// Layout: panels of `panel_columns` output features. f32: [panel][K][columns]; bf16: [panel][K/2][columns][2], K
// padded by zeros to a multiple of the kernels' k_unit, and the last panel's missing columns are zeros.
#pragma once

#include "kernels.h"

namespace tempora {

struct PackedProduct {
  const void* x =
      nullptr;  // rows of f32, or of bf16 where bf16_takes_bf16 says so; `row_x` elements apart, padded as K is
  std::int64_t row_x = 0;
  std::int64_t rows = 0;
  std::int64_t k = 0;  // a multiple of k_unit
  std::int64_t n = 0;
  const void* panels = nullptr;
  // What is probably read after the last panel that is asked for, or null; it may no longer be there, so that it is
  // only to be asked for.
  const void* following = nullptr;
  void* out = nullptr;       // [rows, n]
  std::int64_t row_out = 0;  // elements from one row of out to the next
  bool out_bf16 = false;
  bool accumulate = false;
};

struct PackedKernels {
  int panel_columns;
  bool bf16_takes_bf16;  // whether products with bf16 weights read x as bf16; else as f32
  int k_unit[2];         // what K is padded to, indexed by the weights' DType
  // One panel from rows [first, first + count) of weight [.,k], indexed by DType; count <= panel_columns.
  void (*pack[2])(const void* weight, std::int64_t first, std::int64_t count, std::int64_t k, void* panel);
  // The output columns of panels [begin, end), indexed by the weights' DType.
  void (*multiply[2])(const PackedProduct& product, std::int64_t begin, std::int64_t end);
};

TEMPORA_DECLARE_KERNELS(PackedKernels, packed_kernels)

}  // namespace tempora
