// Blocks of middling size, side by side in large stretches of address space, so that they lie on huge pages. On pages
// of 4 KiB of their own the weights of a small model's layers keep a decoding step waiting for addresses: 5 to 15 % of
// its time.
#pragma once

#include <cstddef>
#include <map>

namespace tempora {

class Slabs {
 public:
  // Smaller blocks are malloc's, larger ones fill huge pages by themselves.
  static constexpr std::size_t kLeast = std::size_t{32} << 10, kMost = std::size_t{16} << 20;

  Slabs() = default;
  ~Slabs();
  Slabs(const Slabs&) = delete;
  Slabs& operator=(const Slabs&) = delete;

  // Of `bytes` from kLeast to kMost, at a page's beginning, zeros; null where the system gives no more.
  void* take(std::size_t bytes) noexcept;

  // What fills huge pages goes back to the system at once, what is beside others' on one when memory is short, and the
  // addresses, of which there are enough, when nothing else of their slab is in use.
  void give_back(void* data, std::size_t bytes) noexcept;

  std::size_t count() const { return slabs_.size(); }

 private:
  struct Slab {
    std::size_t taken = 0;   // bytes from its beginning on that have been handed out
    std::size_t in_use = 0;  // of them
  };

  std::map<char*, Slab> slabs_;  // by their beginnings
  char* current_ = nullptr;      // the one that blocks are taken from
};

}  // namespace tempora
