// One list of cases for every operation of a backend, asked of each backend, instruction set and activation type:
// is it right, is its gradient right, does it give the same bits again?
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "test_support.h"

namespace tempora::test {

struct OpCase {
  std::string name;
  std::function<void(Device& device, DType dtype)> check;
};

// Each file of cases has its part of the list.
std::vector<OpCase> matmul_cases();   // and weights
std::vector<OpCase> element_cases();  // memory, embedding, norms, biases, rope, SwiGLU, rows
std::vector<OpCase> head_cases();
std::vector<OpCase> fused_cases();  // of several operations in one
std::vector<OpCase> optimizer_cases();
std::vector<OpCase> adapter_cases();     // dropout, narrow products
std::vector<OpCase> generation_cases();  // row products, sampling
std::vector<OpCase> sampling_cases(std::int64_t draws);

std::vector<OpCase> op_cases();

// Runs a case twice: it must pass, and what it reads back must be the same bits both times.
void check_case(const OpCase& op_case, Backend& backend, DType dtype);

}  // namespace tempora::test
