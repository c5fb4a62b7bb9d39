#pragma once

#include <vector>

#include "../op_cases.h"

namespace tempora::test {

// What an adapter's products have in one pass on a device alone.
std::vector<OpCase> narrow_cases();

}  // namespace tempora::test
