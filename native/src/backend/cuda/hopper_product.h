// Row products by Hopper's own instructions, beside those by mma.sync that every device has.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "../backend.h"
#include "row_products.h"

namespace tempora {

class HopperProduct {
 public:
  // Null where the device is none of compute capability 9.0, whose code alone has these instructions.
  static std::unique_ptr<HopperProduct> make();
  virtual ~HopperProduct() = default;
  HopperProduct() = default;
  HopperProduct(const HopperProduct&) = delete;
  HopperProduct& operator=(const HopperProduct&) = delete;

  // Whether a block takes one split: then products of several want partial sums.
  virtual bool apart(const RowProducts& products) const = 0;
  virtual void run(RowProducts products, DType out, cudaStream_t stream) const = 0;
};

}  // namespace tempora
