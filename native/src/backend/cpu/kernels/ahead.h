// What is wanted later, on its way from memory beside other work.
#pragma once

#include "byte_rows.h"

namespace tempora::TEMPORA_ISA {

constexpr std::int64_t kCacheLine = 64;

// Brings rows of bytes into the second cache, some lines a call: many at once would wait for each other.
class Ahead {
 public:
  Ahead() : Ahead({}, 1) {}
  Ahead(const ByteRows& rows, std::int64_t calls) : rows_(rows), line_(static_cast<const char*>(rows.data)) {
    const std::int64_t lines = rows.rows * ((rows.bytes + kCacheLine - 1) / kCacheLine);
    at_once_ = (lines + calls - 1) / calls;
  }

  void some() {
    for (std::int64_t i = 0; i < at_once_ && rows_.rows > 0; ++i) {
      __builtin_prefetch(line_ + within_, 0, 2);
      within_ += kCacheLine;
      if (within_ < rows_.bytes) continue;
      within_ = 0;
      line_ += rows_.row;
      --rows_.rows;
    }
  }

 private:
  ByteRows rows_;
  const char* line_;
  std::int64_t within_ = 0, at_once_;
};

}  // namespace tempora::TEMPORA_ISA
