#pragma once

#include <new>
#include <string>
#include <utility>

namespace tempora {

// What is missing, of how much, and what to do about it.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

}  // namespace tempora
