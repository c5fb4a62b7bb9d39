#include "allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

#include "parallel.h"

namespace tempora {
namespace {

constexpr std::size_t kLargeBlock = std::size_t{2} << 20;  // from here on: touched, and only where there is memory

// Freed memory is kept for the next request, but with what is in use no more than there has been in use before, and
// what the operations of a step take and give back all the time.
constexpr std::size_t kMostKept = std::size_t{256} << 20;
constexpr std::size_t kAlwaysKept = std::size_t{32} << 20;

// The next multiple of an eighth of the power of two below, so that few sizes occur: at most 12.5 % is wasted, and 2
// MiB.
std::size_t block_size(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 64);
  std::size_t step = 64;
  while (step * 16 < bytes && step < kLargeBlock) step *= 2;
  if (bytes >= kLargeBlock) step = std::max(step, std::size_t{1} << 16);
  return (bytes + step - 1) / step * step;
}

#if !defined(__has_feature)
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
constexpr bool kSlabs = false;  // side by side, a write past a block's end would not be seen
#else
constexpr bool kSlabs = true;
#endif

bool on_slab(std::size_t block) { return kSlabs && block >= Slabs::kLeast && block <= Slabs::kMost; }

void* map_block(std::size_t block) {
  void* data = mmap(nullptr, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  madvise(data, block, MADV_HUGEPAGE);
  return data;
}

// Pages belong to the memory of the thread that writes them first.
void touch(void* data, std::size_t block, int threads) {
  constexpr std::int64_t kPage = 4096;
  char* bytes = static_cast<char*>(data);
  parallel_ranges(threads, static_cast<std::int64_t>(block) / kPage, 1024, 512,
                  [bytes](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t page = begin; page < end; ++page) bytes[page * kPage] = 0;
                  });
}

// What the system can give without swapping. Linux hands out more than it has and kills who writes it.
std::size_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::size_t kibibytes = 0;
  while (file >> name >> kibibytes) {
    if (name == "MemAvailable:") return kibibytes << 10;
    std::getline(file, unit);
  }
  return std::numeric_limits<std::size_t>::max();  // not told: the request itself will tell
}

std::string in_words(std::size_t bytes) {
  char text[32];
  const double mib = static_cast<double>(bytes) / (1 << 20);
  if (mib < 1024) {
    std::snprintf(text, sizeof text, "%.1f MiB", mib);
  } else {
    std::snprintf(text, sizeof text, "%.2f GiB", mib / 1024);
  }
  return text;
}

constexpr const char* kUseNames[kMemoryUses] = {"weights", "gradients", "optimizer", "workspace", "cache"};

constexpr const char* kRemedies[kMemoryUses] = {
    "take a smaller model, or bf16 weights",
    "take a smaller model: gradients are f32",
    "take a smaller model: AdamW keeps two f32 numbers for each weight",
    "take fewer tokens a batch, or turn activation checkpointing on",
    "take a smaller key/value cache: fewer rows at a time, or shorter completions",
};

}  // namespace

Allocator::~Allocator() { drop_cached(0); }

void* Allocator::take_cached(std::size_t block) {
  const auto found = cached_.find(block);
  if (found == cached_.end() || found->second.empty()) return nullptr;
  const auto freed = found->second.back();
  void* data = freed->data;
  freed_.erase(freed);
  found->second.pop_back();
  if (found->second.empty()) cached_.erase(found);
  cached_bytes_ -= block;
  return data;
}

void* Allocator::take_new(std::size_t block) {
  if (block >= kLargeBlock && block > available_bytes()) return nullptr;
  void* data = nullptr;
  if (on_slab(block)) {
    data = slabs_.take(block);
  } else if (block >= kLargeBlock) {
    data = map_block(block);
  } else {
    data = std::aligned_alloc(64, block);  // NOLINT(cppcoreguidelines-no-malloc)
  }
  if (data != nullptr && block >= kLargeBlock) touch(data, block, threads_);
  return data;
}

void Allocator::free_block(void* data, std::size_t block) noexcept {
  if (on_slab(block)) {
    slabs_.give_back(data, block);
  } else if (block >= kLargeBlock) {
    munmap(data, block);
  } else {
    std::free(data);  // NOLINT(cppcoreguidelines-no-malloc)
  }
}

void Allocator::drop_cached(std::size_t keep_bytes) noexcept {
  // The longest ago first: what was freed just now is what the next step asks for.
  while (cached_bytes_ > keep_bytes) {
    const Freed oldest = freed_.front();
    const auto of_size = cached_.find(oldest.block);
    of_size->second.erase(of_size->second.begin());
    if (of_size->second.empty()) cached_.erase(of_size);
    freed_.pop_front();
    free_block(oldest.data, oldest.block);
    cached_bytes_ -= oldest.block;
  }
}

void* Allocator::allocate(std::size_t bytes, MemoryUse use) {
  const std::lock_guard lock(mutex_);
  if (bytes > std::numeric_limits<std::size_t>::max() / 32) throw out_of_memory(bytes, use);
  const std::size_t block = block_size(bytes);
  void* data = take_cached(block);
  if (data == nullptr) {
    drop_cached(kept_beside(total_ + block));
    data = take_new(block);
  }
  if (data == nullptr) {
    drop_cached(0);
    data = take_new(block);
  }
  if (data == nullptr) throw out_of_memory(bytes, use);
  used_[static_cast<std::size_t>(use)] += block;
  total_ += block;
  peak_ = std::max(peak_, total_);
  return data;
}

std::size_t Allocator::kept_beside(std::size_t used) const {
  return std::clamp(peak_ > used ? peak_ - used : 0, kAlwaysKept, kMostKept);
}

void Allocator::release(void* data, std::size_t bytes, MemoryUse use) noexcept {
  const std::lock_guard lock(mutex_);
  const std::size_t block = block_size(bytes);
  used_[static_cast<std::size_t>(use)] -= block;
  total_ -= block;
  try {
    freed_.push_back({data, block});
    try {
      cached_[block].push_back(std::prev(freed_.end()));
    } catch (const std::bad_alloc&) {
      freed_.pop_back();
      throw;
    }
    cached_bytes_ += block;
  } catch (const std::bad_alloc&) {
    free_block(data, block);
  }
  drop_cached(kept_beside(total_));
}

std::size_t Allocator::used(MemoryUse use) const {
  const std::lock_guard lock(mutex_);
  return used_[static_cast<std::size_t>(use)];
}

std::size_t Allocator::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

OutOfMemory Allocator::out_of_memory(std::size_t bytes, MemoryUse use) const {
  const auto wanted = static_cast<std::size_t>(use);
  std::string held;
  for (std::size_t i = 0; i < kMemoryUses; ++i) {
    if (used_[i] > 0) held += (held.empty() ? "" : ", ") + std::string(kUseNames[i]) + " " + in_words(used_[i]);
  }
  return OutOfMemory("the system has no " + in_words(bytes) + " for " + kUseNames[wanted] +
                     " (held already: " + (held.empty() ? "nothing" : held) + "); " + kRemedies[wanted]);
}

}  // namespace tempora
