// A matrix as every operation sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace tempora {

enum class DType : std::uint8_t { f32, bf16 };

constexpr std::size_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// A view of device memory: row-major. Operations want rows adjacent (dense) unless they say that rows may lie apart.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t apart = 0;  // elements from one row to the next; 0: cols

  std::int64_t size() const { return rows * cols; }
  std::int64_t row_stride() const { return apart == 0 ? cols : apart; }
  bool dense() const { return row_stride() == cols || rows <= 1; }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype); }  // of a dense one
  float* f32() const { return static_cast<float*>(data); }
  Matrix row_range(std::int64_t begin, std::int64_t count) const {
    return {at(begin * row_stride()), dtype, count, cols, apart};
  }
  Matrix column_range(std::int64_t begin, std::int64_t count) const {
    return {at(begin), dtype, rows, count, row_stride()};
  }

 private:
  void* at(std::int64_t element) const {
    return static_cast<char*>(data) + static_cast<std::size_t>(element) * size_of(dtype);
  }
};

// For operations that want rows adjacent. Callers are the engine's own code: what fails here is a defect of it.
inline void require_dense(const char* operation, std::initializer_list<Matrix> matrices) {
  for (const Matrix& matrix : matrices) {
    if (!matrix.dense()) throw std::logic_error(std::string(operation) + ": the rows of a matrix lie apart");
  }
}

}  // namespace tempora
