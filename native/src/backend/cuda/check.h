// Every CUDA call is checked: what failed, where, and the runtime's own words.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace tempora {

inline void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + call + " failed: " + cudaGetErrorString(status));
}

}  // namespace tempora

#define TEMPORA_CUDA_CHECK(call) ::tempora::check_cuda((call), #call)
