#include "cpu_backend.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {

void CpuBackend::swiglu(const Matrix& gate, const Matrix& up, const Matrix& out) {
  require_dense("swiglu", {gate, up, out});
  require(gate.dtype == up.dtype && gate.dtype == out.dtype, "swiglu: all have one type");
  const auto kernel = element_kernels_for(isa_).swiglu[index_of(gate.dtype)];
  parallel_ranges(threads_, gate.size(), kParallelGrain, 64, [&](std::int64_t begin, std::int64_t end) {
    kernel(element(gate, begin), element(up, begin), element(out, begin), end - begin);
  });
}

void CpuBackend::swiglu_backward(const Matrix& gate, const Matrix& up, const Matrix& d_out, const Matrix& d_gate,
                                 const Matrix& d_up, const Matrix& out) {
  require_dense("swiglu_backward", {gate, up, d_out, d_gate, d_up, out});
  require(gate.dtype == up.dtype && gate.dtype == d_out.dtype && gate.dtype == d_gate.dtype &&
              gate.dtype == d_up.dtype && (out.data == nullptr || out.dtype == gate.dtype),
          "swiglu_backward: all have one type");
  const auto kernel = element_kernels_for(isa_).swiglu_backward[index_of(gate.dtype)];
  parallel_ranges(threads_, gate.size(), kParallelGrain, 64, [&](std::int64_t begin, std::int64_t end) {
    kernel(element(gate, begin), element(up, begin), element(d_out, begin), element(d_gate, begin),
           element(d_up, begin), out.data == nullptr ? nullptr : element(out, begin), end - begin);
  });
}

}  // namespace tempora
