#pragma once

#include "../backend.h"

namespace tempora {

// What a row product of few rows comes to before its splits are added.
struct SplitSums {
  int rows = 0, outputs = 0, splits = 0;
  Buffer parts;  // f32 [splits, rows, outputs]; none where the product is complete

  explicit operator bool() const { return static_cast<bool>(parts); }
};

}  // namespace tempora
