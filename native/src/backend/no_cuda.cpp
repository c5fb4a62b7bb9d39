// Stands in for backend/cuda when it is left out: the same symbols. CMake says why in TEMPORA_NO_CUDA_REASON.
#include <stdexcept>

#include "backend.h"

namespace tempora {

namespace {

constexpr const char* kProblem = "built without CUDA: " TEMPORA_NO_CUDA_REASON;

}  // namespace

std::unique_ptr<Backend> make_cuda_backend() { throw std::runtime_error(kProblem); }

CudaInfo cuda_info() { return {false, {}, kProblem}; }

}  // namespace tempora
