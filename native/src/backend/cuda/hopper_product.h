// Row products by Hopper's own instructions, beside those by mma.sync that every device has.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "../backend.h"

namespace tempora {

// out [rows, outputs] (+)= x · weightᵀ, x and weight bf16 of 16-byte aligned rows of whole 16 bytes.
struct RowProductNumbers {
  std::int64_t x_row, out_row;  // elements from a row to the next
  int rows, outputs, inputs;
  // Each element is Σ over splits of (Σ over the split's inputs in order), whatever the number of rows: where rows are
  // few, a block takes one split and another kernel adds them; where they are many, a block walks all of them and adds
  // in the same order.
  int split_inputs, splits;  // a multiple of 64; the last split may have fewer
};

class HopperProduct {
 public:
  // Null where the device is none of compute capability 9.0, whose code alone has these instructions.
  static std::unique_ptr<HopperProduct> make();
  virtual ~HopperProduct() = default;
  HopperProduct() = default;
  HopperProduct(const HopperProduct&) = delete;
  HopperProduct& operator=(const HopperProduct&) = delete;

  // Whether a block takes one split: then `partial` is f32 [splits, rows, outputs] and gets their sums in out's place.
  virtual bool apart(const RowProductNumbers& numbers) const = 0;
  virtual void run(const RowProductNumbers& numbers, const void* x, const void* weight, float* partial,
                   const Matrix& out, bool accumulate, cudaStream_t stream) const = 0;
};

}  // namespace tempora
