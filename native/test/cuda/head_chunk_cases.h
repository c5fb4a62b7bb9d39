#pragma once

#include "../test_support.h"

namespace tempora::test {

// A training step whose rows go through the head in chunks of trees, as backends of less memory ask for.
void run_head_chunk_cases(TestRun& run);

}  // namespace tempora::test
