// Aligned host memory with a cache of freed blocks and a count of what is used for what.
#pragma once

#include <array>
#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <vector>

#include "../backend.h"
#include "slabs.h"

namespace tempora {

class Allocator {
 public:
  explicit Allocator(int threads) : threads_(threads) {}
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  // Aligned to 64 bytes. Throws OutOfMemory. 0 bytes give a valid block too.
  void* allocate(std::size_t bytes, MemoryUse use);
  void release(void* data, std::size_t bytes, MemoryUse use) noexcept;
  std::size_t used(MemoryUse use) const;
  std::size_t peak() const;

 private:
  struct Freed {
    void* data;
    std::size_t block;
  };

  void* take_cached(std::size_t block);
  void* take_new(std::size_t block);
  void free_block(void* data, std::size_t block) noexcept;
  void drop_cached(std::size_t keep_bytes) noexcept;
  // How much freed memory is kept while so many bytes are in use.
  std::size_t kept_beside(std::size_t used) const;
  OutOfMemory out_of_memory(std::size_t bytes, MemoryUse use) const;

  mutable std::mutex mutex_;  // buffers may be released from another thread than the one that computes
  int threads_;
  Slabs slabs_;
  std::list<Freed> freed_;                                                 // the longest ago first
  std::map<std::size_t, std::vector<std::list<Freed>::iterator>> cached_;  // by block size, the longest ago first
  std::size_t cached_bytes_ = 0;
  std::array<std::size_t, kMemoryUses> used_{};
  std::size_t total_ = 0;  // of all uses
  std::size_t peak_ = 0;
};

}  // namespace tempora
