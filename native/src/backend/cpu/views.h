// Small helpers on matrices.
#pragma once

#include <stdexcept>
#include <string>

#include "../backend.h"

namespace tempora {

inline void* element(const Matrix& x, std::int64_t index) {
  return static_cast<char*>(x.data) + static_cast<std::size_t>(index) * size_of(x.dtype);
}

inline const void* element(const void* data, DType dtype, std::int64_t index) {
  return static_cast<const char*>(data) + static_cast<std::size_t>(index) * size_of(dtype);
}

inline int index_of(DType dtype) { return static_cast<int>(dtype); }

// Callers are the engine's own code: what fails here is a defect of it, not bad input.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("CPU backend: ") + what);
}

}  // namespace tempora
