// Bump allocation for one step's activations. After the first step of a size nothing is allocated any more.
#pragma once

#include <algorithm>
#include <vector>

#include "../backend/backend.h"

namespace tempora {

class Arena {
 public:
  explicit Arena(Backend& backend) : backend_(backend) {}

  struct Mark {
    std::size_t chunk = 0;
    std::size_t offset = 0;
  };

  void* bytes(std::size_t size) {
    size = (size + 63) / 64 * 64;
    while (current_ < chunks_.size() && offset_ + size > chunks_[current_].bytes()) {
      ++current_;
      offset_ = 0;
    }
    if (current_ == chunks_.size()) {
      chunks_.push_back(backend_.allocate(std::max(size, kChunk), MemoryUse::workspace));
      offset_ = 0;
    }
    void* data = static_cast<char*>(chunks_[current_].data()) + offset_;
    offset_ += size;
    return data;
  }

  Matrix matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
    return {bytes(static_cast<std::size_t>(rows * cols) * size_of(dtype)), dtype, rows, cols};
  }

  float* floats(std::int64_t count) { return static_cast<float*>(bytes(static_cast<std::size_t>(count) * 4)); }

  template <typename T>
  const T* upload(const std::vector<T>& host) {
    void* device = bytes(std::max<std::size_t>(1, host.size() * sizeof(T)));
    if (!host.empty()) backend_.copy_in(device, host.data(), host.size() * sizeof(T));
    return static_cast<const T*>(device);
  }

  Mark mark() const { return {current_, offset_}; }
  void rewind(Mark mark) {
    current_ = mark.chunk;
    offset_ = mark.offset;
  }
  // Forgets everything; the memory stays for the next step.
  void reset() { rewind({}); }
  // Gives the memory back.
  void clear() {
    reset();
    chunks_.clear();
  }

 private:
  static constexpr std::size_t kChunk = std::size_t{8} << 20;

  Backend& backend_;
  std::vector<Buffer> chunks_;
  std::size_t current_ = 0;
  std::size_t offset_ = 0;
};

// Rewinds an arena at the end of a scope.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace tempora
