// The CUDA backend with every allocation between two guards, and poisoned with NaN as they are: writes out of bounds
// are found when a buffer is released, reads out of bounds and of memory that nobody wrote make results NaN.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "backend/cuda/cuda_backend.h"

namespace tempora::test {

class GuardedCudaBackend : public CudaBackend {
 public:
  using CudaBackend::CudaBackend;

  Buffer allocate(std::size_t bytes, MemoryUse use) override {
    Buffer whole = CudaBackend::allocate(bytes + 2 * kGuard, use);
    char* inside = static_cast<char*>(whole.data()) + kGuard;
    const std::vector<std::uint8_t> poison(bytes + 2 * kGuard, kPoison);
    copy_in(whole.data(), poison.data(), poison.size());
    whole_of_.emplace(inside, std::move(whole));
    return Buffer(this, inside, bytes, use);
  }

  // Called for what allocate() handed out, and then, as that is dropped, for the whole.
  void release(void* data, std::size_t bytes, MemoryUse use) noexcept override {
    const auto found = whole_of_.find(data);
    if (found == whole_of_.end()) return CudaBackend::release(data, bytes, use);
    const char* inside = static_cast<const char*>(data);
    broken_ = broken_ || !is_whole(inside - kGuard) || !is_whole(inside + bytes);
    const Buffer whole = std::move(found->second);
    whole_of_.erase(found);
  }

  // Whether a guard was found overwritten since the last time.
  bool was_broken() { return std::exchange(broken_, false); }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr std::uint8_t kPoison = 0xFF;

  bool is_whole(const void* guard) {
    std::vector<std::uint8_t> bytes(kGuard);
    copy_out(bytes.data(), guard, kGuard);
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == kPoison; });
  }

  std::map<void*, Buffer> whole_of_;
  bool broken_ = false;
};

}  // namespace tempora::test
