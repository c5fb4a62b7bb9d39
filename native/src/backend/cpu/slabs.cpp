#include "slabs.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>
#include <new>

namespace tempora {
namespace {

constexpr std::size_t kSlab = std::size_t{64} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// A neighbour's bytes on the same page would go with a block's.
std::size_t whole_pages(std::size_t bytes) {
  static const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Addresses without memory, which comes when they are written; at a huge page's beginning.
char* map_slab() {
  constexpr std::size_t kMapped = kSlab + kHugePage;
  void* const mapped =
      mmap(nullptr, kMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before > 0) munmap(begin, before);
  munmap(begin + before + kSlab, kHugePage - before);
  madvise(begin + before, kSlab, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

Slabs::~Slabs() {
  for (const auto& [begin, slab] : slabs_) munmap(begin, kSlab);
}

void* Slabs::take(std::size_t bytes) noexcept {
  const std::size_t size = whole_pages(bytes);
  if (current_ == nullptr || slabs_.at(current_).taken + size > kSlab) {
    char* const begin = map_slab();
    if (begin == nullptr) return nullptr;
    try {
      slabs_.emplace(begin, Slab{});
    } catch (const std::bad_alloc&) {
      munmap(begin, kSlab);
      return nullptr;
    }
    current_ = begin;
  }
  Slab& slab = slabs_.at(current_);
  char* const data = current_ + slab.taken;
  slab.taken += size;
  slab.in_use += size;
  return data;
}

void Slabs::give_back(void* data, std::size_t bytes) noexcept {
  const std::size_t size = whole_pages(bytes);
  const auto of = std::prev(slabs_.upper_bound(static_cast<char*>(data)));
  of->second.in_use -= size;
  if (of->second.in_use > 0) {
    madvise(data, size, MADV_DONTNEED);
    return;
  }
  if (of->first == current_) current_ = nullptr;
  munmap(of->first, kSlab);
  slabs_.erase(of);
}

}  // namespace tempora
