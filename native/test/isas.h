#pragma once

#include <vector>

#include "backend/cpu/kernels/kernels.h"

namespace tempora::test {

// Those that this CPU has.
std::vector<Isa> tested_isas();

}  // namespace tempora::test
