#include "op_cases.h"

namespace tempora::test {

std::vector<OpCase> op_cases() {
  std::vector<OpCase> all;
  for (const auto part :
       {matmul_cases, adapter_cases, element_cases, fused_cases, head_cases, optimizer_cases, generation_cases}) {
    for (OpCase& op_case : part()) all.push_back(std::move(op_case));
  }
  return all;
}

void check_case(const OpCase& op_case, Backend& backend, DType dtype) {
  Device first(backend);
  op_case.check(first, dtype);
  Device second(backend);
  op_case.check(second, dtype);
  expect(!first.read_back.empty(), "the case reads nothing back");
  expect(first.read_back == second.read_back, "the second run gave other bits");
}

}  // namespace tempora::test
