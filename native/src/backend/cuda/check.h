// Every CUDA call is checked: what failed, where, and the runtime's own words.
//
// Other calls than those that allocate want memory too: a kernel is loaded at its first launch.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "../out_of_memory.h"

namespace tempora {

inline void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that nobody takes it for another call's
  const std::string what = std::string("CUDA: ") + call + " failed: " + cudaGetErrorString(status);
  if (status != cudaErrorMemoryAllocation) throw std::runtime_error(what);
  throw OutOfMemory(what + "; lower max-tokens (or the generation's rows and cache tokens), or end other programs");
}

}  // namespace tempora

#define TEMPORA_CUDA_CHECK(call) ::tempora::check_cuda((call), #call)
