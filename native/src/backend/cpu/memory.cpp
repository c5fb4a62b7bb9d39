#include <atomic>
#include <cstring>

#include "cpu_backend.h"
#include "kernels/elements.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

constexpr std::int64_t kCopyGrain = 1 << 18;  // bytes

void copy_bytes(int threads, void* to, const void* from, std::size_t bytes) {
  parallel_ranges(threads, static_cast<std::int64_t>(bytes), kCopyGrain, 4096,
                  [=](std::int64_t begin, std::int64_t end) {
                    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                                static_cast<std::size_t>(end - begin));
                  });
}

}  // namespace

Buffer CpuBackend::allocate(std::size_t bytes, MemoryUse use) {
  return {this, allocator_.allocate(bytes, use), bytes, use};
}

void CpuBackend::release(void* data, std::size_t bytes, MemoryUse use) noexcept {
  allocator_.release(data, bytes, use);
}

std::size_t CpuBackend::used(MemoryUse use) const { return allocator_.used(use); }
std::size_t CpuBackend::peak() const { return allocator_.peak(); }

void CpuBackend::copy_in(void* device, const void* host, std::size_t bytes) {
  copy_bytes(threads_, device, host, bytes);
}

void CpuBackend::copy_out(void* host, const void* device, std::size_t bytes) {
  copy_bytes(threads_, host, device, bytes);
}

void CpuBackend::copy(void* to, const void* from, std::size_t bytes) { copy_bytes(threads_, to, from, bytes); }

void CpuBackend::zero(void* device, std::size_t bytes) {
  parallel_ranges(threads_, static_cast<std::int64_t>(bytes), kCopyGrain, 4096,
                  [=](std::int64_t begin, std::int64_t end) {
                    std::memset(static_cast<char*>(device) + begin, 0, static_cast<std::size_t>(end - begin));
                  });
}

void CpuBackend::cast(const Matrix& from, const Matrix& to) {
  require_dense("cast", {from, to});
  require(from.size() == to.size(), "cast: the sizes differ");
  if (from.dtype == to.dtype) return copy(to.data, from.data, from.bytes());
  const ElementKernels& kernels = element_kernels_for(isa_);
  parallel_ranges(threads_, from.size(), kParallelGrain, 64, [&](std::int64_t begin, std::int64_t end) {
    if (to.dtype == DType::f32) {
      kernels.widen(static_cast<const std::uint16_t*>(from.data) + begin, to.f32() + begin, end - begin);
    } else {
      kernels.narrow(from.f32() + begin, static_cast<std::uint16_t*>(to.data) + begin, end - begin);
    }
  });
}

bool CpuBackend::all_finite(const Matrix& x) {
  require_dense("all_finite", {x});
  const auto kernel = element_kernels_for(isa_).all_finite[index_of(x.dtype)];
  std::atomic<bool> finite{true};
  parallel_ranges(threads_, x.size(), kParallelGrain, 64, [&](std::int64_t begin, std::int64_t end) {
    if (!kernel(element(x, begin), end - begin)) finite = false;
  });
  return finite;
}

}  // namespace tempora
