#pragma once

#include "test_support.h"

namespace tempora::test {

void run_access_cases(TestRun& run);

}  // namespace tempora::test
