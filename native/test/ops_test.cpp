// Every operation of the CPU backend, for every set of instructions that this CPU has.
#include <cstdlib>

#include "isas.h"
#include "op_cases.h"

int main(int argc, char** argv) {
  using namespace tempora;
  test::TestRun run(argc, argv);
  for (const Isa isa : test::tested_isas()) {
    setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
    for (const int threads : {1, 2, 3}) {
      const auto backend = make_cpu_backend(threads);
      for (const test::OpCase& op_case : test::op_cases()) {
        for (const DType dtype : {DType::f32, DType::bf16}) {
          run.run(
              op_case.name + (dtype == DType::f32 ? " f32 " : " bf16 ") + isa_name(isa) + " " + std::to_string(threads),
              [&] { test::check_case(op_case, *backend, dtype); });
        }
      }
    }
  }
  setenv("TEMPORA_CPU_KERNELS", "mmx", 1);
  run.run("an unknown set of instructions is refused by name", [] {
    try {
      make_cpu_backend(1);
    } catch (const std::invalid_argument& error) {
      test::expect(std::string(error.what()).find("TEMPORA_CPU_KERNELS=mmx") != std::string::npos, error.what());
      return;
    }
    throw test::TestFailure("it was taken");
  });
  return run.finish();
}
