// Bump allocation for one step's activations. A step that needs more than any before adds chunks; where nothing is in
// use they are replaced by one as large as all that was in use at once. After that nothing is allocated any more.
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
    std::size_t used = 0;
  };

  void* bytes(std::size_t size) {
    size = (size + 63) / 64 * 64;
    while (current_ < chunks_.size() && offset_ + size > chunks_[current_].bytes()) {
      ++current_;
      offset_ = 0;
    }
    if (current_ == chunks_.size()) {
      add_chunk(size);
    }
    void* data = static_cast<char*>(chunks_[current_].data()) + offset_;
    offset_ += size;
    used_ += size;
    high_water_ = std::max(high_water_, used_);
    return data;
  }

  // So many more bytes will be taken: the next chunk holds what of them is left by then.
  void expect(std::size_t more) { expected_ = used_ + more; }
  std::size_t used() const { return used_; }

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

  Mark mark() const { return {current_, offset_, used_}; }
  void rewind(Mark mark) {
    current_ = mark.chunk;
    offset_ = mark.offset;
    used_ = mark.used;
    // Chunks are seldom filled to their ends. Not for a little: rows that grow one by one would ask for all of it each
    // time.
    if (used_ == 0 && chunks_.size() > 1 && held_ > high_water_ + high_water_ / 16) give_back();
  }
  // Forgets everything; the memory stays for the next step. Several chunks are given back, for one to take their place:
  // a step a little longer than the last would find each of them a little too small, and add as many again.
  void reset() {
    rewind({});
    expected_ = 0;
    if (chunks_.size() > 1) give_back();
  }
  // Gives the memory back.
  void clear() {
    rewind({});
    give_back();
    high_water_ = 0;
    expected_ = 0;
  }
  // Another one after memory was given back: who remembers where something lay, remembers too much.
  std::uint64_t version() const { return version_; }

 private:
  static constexpr std::size_t kChunk = std::size_t{2} << 20;

  void add_chunk(std::size_t size) {
    std::size_t bytes = std::max(size, chunks_.empty() ? std::max(kChunk, high_water_) : kChunk);
    if (expected_ > used_) bytes = std::max(bytes, expected_ - used_);
    chunks_.push_back(backend_.allocate(bytes, MemoryUse::workspace));
    held_ += bytes;
    offset_ = 0;
  }

  void give_back() {
    chunks_.clear();
    current_ = 0;
    held_ = 0;
    ++version_;
  }

  Backend& backend_;
  std::vector<Buffer> chunks_;
  std::size_t current_ = 0;
  std::size_t offset_ = 0;
  std::size_t used_ = 0;        // bytes handed out and not rewound
  std::size_t high_water_ = 0;  // the most there ever were
  std::size_t expected_ = 0;    // used_ when all that was announced is taken
  std::size_t held_ = 0;        // bytes of all chunks
  std::uint64_t version_ = 0;
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
