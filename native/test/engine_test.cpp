// The engine on the CPU.
#include "engine_cases.h"

int main(int argc, char** argv) {
  tempora::test::TestRun run(argc, argv);
  tempora::test::run_engine_cases(run, {});
  tempora::test::run_adapter_cases(run, {});
  tempora::test::run_generation_cases(run, {});
  tempora::test::run_adapter_batch_cases(run, {});
  return run.finish();
}
