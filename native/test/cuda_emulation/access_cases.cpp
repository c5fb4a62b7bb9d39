// What the emulated device does where a processor does something else: accesses at odd addresses, sums of tensor cores.
#include <stdexcept>
#include <string>

#include "access_cases.h"
#include "cuda_runtime.h"
#include "tensor_core.h"

namespace tempora::test {
namespace {

// The sum of a vector's ends, `offset` bytes behind a multiple of 16.
float ends_of_vector(int offset) {
  float sum = 0;
  emulation::run_grid(dim3(1), dim3(1), 64, [&] {
    char* memory = emulation::launched_shared();
    std::memset(memory, 0, 64);
    const float4 vector = *reinterpret_cast<const float4*>(memory + offset);
    sum = vector.x + vector.w;
  });
  return sum;
}

void check_odd_addresses() {
  expect(ends_of_vector(16) == 0, "zeros are none");
  try {
    ends_of_vector(8);
  } catch (const std::logic_error& error) {
    const std::string what = error.what();
    return expect(what.find("an access that wants multiples of 16 bytes, at one of 8") != std::string::npos, what);
  }
  throw TestFailure("16 bytes were read at a multiple of 8");
}

// A processor would round all of these to the next float.
void check_tensor_core_sums() {
  const double small[] = {0x1.8p-24, 0}, none[] = {0x1p-25, 0x1p-25}, opposite[] = {-1, 0x1p-24};
  expect(emulation::add_on_tensor_core(1.0f, small) == 1.0f, "a sum is not cut off");
  expect(emulation::add_on_tensor_core(-1.0f, opposite) == -0x1.fffffep0f, "a sum is not cut off towards zero");
  expect(emulation::add_on_tensor_core(2.0f, none) == 2.0f, "what lies too far below the largest is not left out");
  const double exact[] = {0x1p-23, -0x1p-24};
  expect(emulation::add_on_tensor_core(0.0f, exact) == 0x1p-24f, "a small sum is not exact");
}

}  // namespace

void run_access_cases(TestRun& run) {
  run.run("accesses at odd addresses are refused", check_odd_addresses);
  run.run("tensor cores cut sums off", check_tensor_core_sums);
}

}  // namespace tempora::test
