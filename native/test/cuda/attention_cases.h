#pragma once

#include <vector>

#include "../op_cases.h"

namespace tempora::test {

// Tree attention and attention over the paged cache, against their definition, in device memory.
std::vector<OpCase> attention_cases();

}  // namespace tempora::test
