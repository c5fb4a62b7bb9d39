// What the kernels are told of dropout in one row.
#pragma once

#include "../../forest/random.h"
#include "../backend.h"
#include "kernels/dropout.h"

namespace tempora {

inline DropoutRow dropout_row(const Dropout& dropout, std::int64_t row) {
  return {combine_key(dropout.key, static_cast<std::uint64_t>(dropout.first_row + row)), dropout.threshold(),
          dropout.scale()};
}

}  // namespace tempora
