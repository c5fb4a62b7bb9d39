#pragma once

#include "../test_support.h"

namespace tempora::test {

// The device's memory among the engines of a process.
void run_memory_cases(TestRun& run);

}  // namespace tempora::test
