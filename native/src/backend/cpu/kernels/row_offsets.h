// Addresses of the rows that a kernel multiplies at once.
#pragma once

#include <cstdint>

namespace tempora::TEMPORA_ISA {

// Where twelve rows are, by addresses of few registers: sums of two pointers and of one, two or four times three steps.
struct RowOffsets {
  std::int64_t one, three, five, six;

  explicit RowOffsets(std::int64_t row) : one(row), three(3 * row), five(5 * row), six(6 * row) {}

  template <typename T>
  const T* row(const T* first, int r) const {
    const T* base = r < 6 ? first : first + six;
    switch (r % 6) {
      case 0:
        return base;
      case 1:
        return base + one;
      case 2:
        return base + 2 * one;
      case 3:
        return base + three;
      case 4:
        return base + 4 * one;
      default:
        return base + five;
    }
  }
};

}  // namespace tempora::TEMPORA_ISA
