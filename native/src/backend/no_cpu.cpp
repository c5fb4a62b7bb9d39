// Stands in for backend/cpu when it is left out (TEMPORA_CPU=OFF): the same symbols.
#include <stdexcept>

#include "backend.h"

namespace tempora {

namespace {

constexpr const char* kProblem = "built without the CPU backend: configure with -DTEMPORA_CPU=ON";

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(int /*threads*/) { throw std::runtime_error(kProblem); }

CpuInfo cpu_info() { throw std::runtime_error(kProblem); }

}  // namespace tempora
