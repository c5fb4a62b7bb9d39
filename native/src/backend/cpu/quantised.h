// Rows of a quantised weight as plain numbers.
#pragma once

#include "../backend.h"
#include "kernels/kernels.h"

namespace tempora {

// to [count, K] of `dtype` = rows [first, first + count) of the weight.
void dequantise_rows(Isa isa, const Weight& weight, std::int64_t first, std::int64_t count, DType dtype, void* to);

}  // namespace tempora
