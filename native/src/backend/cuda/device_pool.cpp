#include "device_pool.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "check.h"

namespace tempora {
namespace {

constexpr std::size_t kUnit = 512;                    // of blocks of small segments
constexpr std::size_t kLarge = std::size_t{1} << 20;  // what has a segment of its own, and its unit
constexpr std::size_t kPage = std::size_t{2} << 20;   // the device's own
constexpr std::size_t kSmallSegment = std::size_t{8} << 20;

std::size_t rounded(std::size_t bytes, std::size_t unit) {
  return (std::max<std::size_t>(bytes, 1) + unit - 1) / unit * unit;
}

std::uintptr_t number_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }
void* pointer_of(std::uintptr_t number) {
  return reinterpret_cast<void*>(number);
}  // NOLINT(performance-no-int-to-ptr)

}  // namespace

DevicePool& DevicePool::instance() {
  static auto* pool = new DevicePool();  // NOLINT(cppcoreguidelines-owning-memory): see the header
  return *pool;
}

void DevicePool::open(cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  streams_.insert(stream);
}

void DevicePool::close(cudaStream_t stream) noexcept {
  std::unique_lock lock(mutex_);
  wait_for_captures(lock);
  reclaim(stream);
  drop_segments(true);
  streams_.erase(stream);
}

void DevicePool::begin_capture(cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  captured_.insert(stream);
}

void DevicePool::end_capture(cudaStream_t stream) noexcept {
  const std::scoped_lock lock(mutex_);
  captured_.erase(stream);
  capture_ended_.notify_all();
}

void DevicePool::wait_for_captures(std::unique_lock<std::mutex>& lock) noexcept {
  capture_ended_.wait(lock, [this] { return captured_.empty(); });
}

void DevicePool::give_device_unused(cudaStream_t stream) noexcept {
  std::unique_lock lock(mutex_);
  wait_for_captures(lock);
  reclaim(stream);
  drop_segments(true);
}

std::size_t DevicePool::cached() const {
  const std::scoped_lock lock(mutex_);
  std::size_t bytes = 0;
  for (const FreeBlock& block : free_) bytes += block.bytes;
  return bytes;
}

DevicePool::FreeBlocks::iterator DevicePool::best_fit(bool large, std::uintptr_t stream, std::size_t bytes) {
  const auto found = free_.lower_bound({large, stream, bytes, 0});
  return found != free_.end() && found->large == large && found->stream == stream ? found : free_.end();
}

DevicePool::FreeBlocks::iterator DevicePool::fitting(bool large, cudaStream_t stream, std::size_t bytes) {
  const auto own = best_fit(large, number_of(stream), bytes);
  return own != free_.end() ? own : best_fit(large, 0, bytes);
}

void DevicePool::add_free(std::uintptr_t data, std::size_t bytes, std::uintptr_t segment, bool large,
                          cudaStream_t stream) {
  Block& block = blocks_[data];
  block.bytes = bytes;
  block.segment = segment;
  block.at = free_.insert({large, number_of(stream), bytes, data}).first;
}

// Takes `bytes` of a free block; what is left stays free, for the same stream, so that they join again.
DevicePool::Taken DevicePool::cut(FreeBlocks::iterator found, std::size_t bytes, cudaStream_t stream) {
  const FreeBlock whole = *found;
  Block& block = blocks_.at(whole.data);
  if (whole.bytes > bytes) {
    add_free(whole.data + bytes, whole.bytes - bytes, block.segment, whole.large, stream);
    block.bytes = bytes;
  }
  block.entry = free_.extract(found);
  return {pointer_of(whole.data), block.bytes};
}

// A new segment of the device, free.
bool DevicePool::grow(bool large, cudaStream_t stream, std::size_t bytes) {
  const std::size_t size = large ? rounded(bytes, kPage) : kSmallSegment;
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, size);
  // What no device could ever have may be an invalid value.
  if (status == cudaErrorMemoryAllocation || status == cudaErrorInvalidValue) {
    cudaGetLastError();  // forget the failure
    return false;
  }
  check_cuda(status, "cudaMalloc");
  segments_.emplace(number_of(data), size);
  add_free(number_of(data), size, number_of(data), large, stream);
  return true;
}

DevicePool::Taken DevicePool::take(std::size_t bytes, cudaStream_t stream) {
  std::unique_lock lock(mutex_);
  const bool large = bytes >= kLarge;
  bytes = rounded(bytes, large ? kLarge : kUnit);
  const auto try_to_cut = [&](Taken& taken) {
    const auto found = fitting(large, stream, bytes);
    if (found != free_.end()) taken = cut(found, bytes, stream);
    return taken.data != nullptr;
  };
  Taken taken;
  if (try_to_cut(taken)) return taken;
  wait_for_captures(lock);
  if (try_to_cut(taken)) return taken;
  // Whole segments that are too small for it would be hoarded: they make room for one that it fits into.
  if (large) {
    reclaim(stream);
    if (try_to_cut(taken)) return taken;
    drop_segments(false);
  }
  if (!grow(large, stream, bytes)) {
    for (cudaStream_t each : streams_) reclaim(each);
    if (try_to_cut(taken)) return taken;
    drop_segments(true);
    if (!grow(large, stream, bytes)) return taken;
  }
  try_to_cut(taken);
  return taken;
}

std::size_t DevicePool::give_back(void* data, cudaStream_t stream) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto block = blocks_.find(number_of(data));
  const std::size_t bytes = block->second.bytes;
  FreeBlocks::node_type entry = std::move(block->second.entry);
  entry.value().stream = number_of(stream);
  entry.value().bytes = bytes;
  block->second.entry = {};
  block->second.at = free_.insert(std::move(entry)).position;
  join(block);
  return bytes;
}

// Waits for what is queued on a stream: what it gave back is anyone's then. One that failed cannot be waited for; its
// next call will say so.
void DevicePool::reclaim(cudaStream_t stream) noexcept {
  if (cudaStreamSynchronize(stream) != cudaSuccess) return;
  const std::uintptr_t own = number_of(stream);
  for (const bool large : {false, true}) {
    for (auto found = best_fit(large, own, 0); found != free_.end(); found = best_fit(large, own, 0)) {
      const auto block = blocks_.find(found->data);
      FreeBlocks::node_type entry = free_.extract(found);
      entry.value().stream = 0;
      block->second.at = free_.insert(std::move(entry)).position;
      join(block);
    }
  }
}

// With its free neighbours of the same segment, unless they are another stream's.
void DevicePool::join(Blocks::iterator block) noexcept {
  join_next(block);
  if (block != blocks_.begin()) join_next(std::prev(block));
}

void DevicePool::join_next(Blocks::iterator block) noexcept {
  const auto next = std::next(block);
  if (next == blocks_.end() || !block->second.free() || !next->second.free()) return;
  if (block->second.segment != next->second.segment) return;
  const std::uintptr_t first = block->second.at->stream, second = next->second.at->stream;
  if (first != second && first != 0 && second != 0) return;
  FreeBlocks::node_type entry = free_.extract(block->second.at);
  free_.erase(next->second.at);
  block->second.bytes += next->second.bytes;
  blocks_.erase(next);
  entry.value().stream = std::max(first, second);
  entry.value().bytes = block->second.bytes;
  block->second.at = free_.insert(std::move(entry)).position;
}

// Gives back to the device what is whole and no stream's.
void DevicePool::drop_segments(bool small_ones_too) noexcept {
  for (auto at = free_.begin(); at != free_.end();) {
    const auto found = at++;
    const auto segment = segments_.find(found->data);
    const bool whole = segment != segments_.end() && segment->second == found->bytes;
    if (found->stream != 0 || !whole || !(found->large || small_ones_too)) continue;
    cudaFree(pointer_of(found->data));
    blocks_.erase(found->data);
    segments_.erase(segment);
    free_.erase(found);
  }
}

}  // namespace tempora
