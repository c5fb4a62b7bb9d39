#pragma once

#include "../test_support.h"

namespace tempora::test {

// What the CUDA backend keeps of operations to run them again, and what it refuses to keep.
void run_recording_cases(TestRun& run);

}  // namespace tempora::test
