// NF4 on the host, where weights come from and go to.
#pragma once

#include <vector>

#include "nf4.h"

namespace tempora {

// A weight's storage, and its numbers again.
std::vector<std::uint8_t> nf4_quantised(const std::vector<float>& values);
// Whether all numbers of a storage are finite.
bool nf4_finite(const std::uint8_t* storage, std::int64_t n);
std::vector<float> nf4_dequantised(const std::uint8_t* storage, std::int64_t n);

}  // namespace tempora
