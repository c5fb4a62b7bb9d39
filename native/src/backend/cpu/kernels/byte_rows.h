// A part of a matrix, as memory.
#pragma once

#include <cstdint>

namespace tempora {

// Rows of bytes, `row` bytes apart.
struct ByteRows {
  const void* data = nullptr;
  std::int64_t rows = 0, row = 0, bytes = 0;
};

}  // namespace tempora
