// The products of adapters, put together of a backend's other operations.
#include "backend.h"

namespace tempora {
namespace {

// x as f32 after dropout, in `owner` where it is not so already.
Matrix after_dropout(Backend& backend, const Matrix& x, const Dropout& dropout, Buffer& owner) {
  if (x.dtype == DType::f32 && dropout.rate <= 0) return x;
  owner = backend.allocate(static_cast<std::size_t>(x.size()) * sizeof(float), MemoryUse::workspace);
  const Matrix out{owner.data(), DType::f32, x.rows, x.cols};
  backend.dropout(x, dropout, out);
  return out;
}

}  // namespace

void Backend::narrow_product(const Matrix& x, const Dropout& dropout, const Weight& weight, bool transposed,
                             float factor, const Matrix& narrow) {
  Buffer owner;
  const Matrix input = after_dropout(*this, x, dropout, owner);
  (transposed ? transposed_product(input, weight, narrow, false) : product(input, weight, narrow, false));
  scale(narrow, factor);
}

void Backend::narrow_gradient(const Matrix& x, const Dropout& dropout, const Matrix& narrow, bool transposed,
                              const Matrix& gradient) {
  Buffer owner;
  const Matrix input = after_dropout(*this, x, dropout, owner);
  (transposed ? gradient_product(input, narrow, gradient, true) : gradient_product(narrow, input, gradient, true));
}

bool Backend::adapter_rows(const Matrix&, const Weight&, float, const Weight&, const Matrix&) { return false; }

bool Backend::narrow_input_gradient(const Matrix&, const Weight&, const Dropout&, const Matrix&) { return false; }

}  // namespace tempora
