// One list of cases for the engine, asked on each device.
#pragma once

#include "test_support.h"

namespace tempora::test {

struct EngineCases {
  bool cuda = false;
  bool against_cpu = false;  // wants the CPU backend beside
  bool many_passes = true;   // the cases of hundreds of passes: finite differences and training
};

void run_engine_cases(TestRun& run, const EngineCases& cases);
void run_generation_cases(TestRun& run, const EngineCases& cases);
void run_adapter_cases(TestRun& run, const EngineCases& cases);
void run_adapter_batch_cases(TestRun& run, const EngineCases& cases);

}  // namespace tempora::test
