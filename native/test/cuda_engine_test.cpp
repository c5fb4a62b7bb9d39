// The engine on a CUDA device: a real one, or, as another build of this file, the emulated one.
#include <cstdio>
#include <stdexcept>

#include "backend/backend.h"
#include "cuda/schedule.h"
#include "engine_cases.h"

namespace {

bool has_cpu_backend() {
  try {
    return tempora::cpu_info().threads > 0;
  } catch (const std::runtime_error&) {
    return false;  // built without it
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tempora;
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) {
    std::printf("no CUDA device: nothing was run (%s)\n", info.problem.c_str());
    return 77;
  }
  std::printf("on %s\n", info.devices.front().c_str());
  test::TestRun run(argc, argv);
  // On the emulated device the CPU is the judge of gradients and steps: finite differences would take it an hour.
  const test::EngineCases cases{
      .cuda = true, .against_cpu = has_cpu_backend(), .many_passes = !test::device_is_emulated()};
  test::run_engine_cases(run, cases);
  test::run_adapter_cases(run, cases);
  test::run_adapter_batch_cases(run, cases);
  return run.finish();
}
