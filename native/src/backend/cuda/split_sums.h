#pragma once

#include "../backend.h"
#include "hopper_product.h"

namespace tempora {

// What a row product of few rows comes to before its splits are added.
struct SplitSums {
  RowProductNumbers numbers;
  Buffer parts;  // f32 [splits, rows, outputs]; none where the product is complete

  explicit operator bool() const { return static_cast<bool>(parts); }
};

}  // namespace tempora
