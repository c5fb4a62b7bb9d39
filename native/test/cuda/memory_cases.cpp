#include "memory_cases.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

#include "backend/cuda/check.h"
#include "backend/cuda/cuda_backend.h"
#include "schedule.h"

namespace tempora::test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  TEMPORA_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

void check_blocks_are_cut_and_joined() {
  CudaBackend backend;
  backend.allocate(64 * kMiB, MemoryUse::workspace);
  const std::size_t free = free_bytes();
  {
    std::vector<Buffer> parts;
    for (int i = 0; i < 4; ++i) parts.push_back(backend.allocate(16 * kMiB, MemoryUse::workspace));
    expect(backend.used(MemoryUse::workspace) == 64 * kMiB, "parts of a block are counted as more than they are");
    for (const int i : {2, 0, 3, 1}) parts[static_cast<std::size_t>(i)] = Buffer();
  }
  backend.allocate(64 * kMiB, MemoryUse::workspace);
  expect(free_bytes() == free, "the device was asked for memory that was there in parts, or as a whole");
}

void check_growing_needs_are_not_hoarded() {
  CudaBackend backend;
  const std::size_t free = free_bytes();
  for (std::size_t size = 4 * kMiB; size <= 64 * kMiB; size += 4 * kMiB) backend.allocate(size, MemoryUse::workspace);
  expect(free - free_bytes() <= 64 * kMiB, "blocks that nobody needs any more are kept");
}

void check_last_engine_gives_all_back() {
  const std::size_t free = free_bytes();
  {
    CudaBackend backend;
    const Buffer large = backend.allocate(32 * kMiB, MemoryUse::weights);
    const Buffer small = backend.allocate(100, MemoryUse::weights);
  }
  expect(free_bytes() == free, "an engine that is gone holds memory");
}

// What one engine has given back is another's, but not before what the first has queued on it has ended.
void check_engines_share() {
  CudaBackend first, second;
  const std::size_t size = free_bytes() / 10 * 6 / kMiB * kMiB;
  {
    const Buffer block = first.allocate(size, MemoryUse::cache);
    first.zero(block.data(), size);
  }
  const Buffer block = second.allocate(size, MemoryUse::cache);
  const std::vector<std::uint8_t> given(4096, 7);
  second.copy_in(block.data(), given.data(), given.size());
  second.synchronize();
  first.synchronize();
  std::vector<std::uint8_t> got(given.size());
  second.copy_out(got.data(), block.data(), got.size());
  expect(got == given, "an engine writes into what it has given back");
  try {
    first.allocate(size, MemoryUse::cache);
  } catch (const OutOfMemory&) {
    return;
  }
  throw TestFailure("two engines have one memory");
}

// Another thread may not wait for a stream that is being captured: it waits for the end of that.
void check_capture_is_waited_for() {
  CudaBackend first, second;
  const std::size_t size = free_bytes() / 10 * 6 / kMiB * kMiB;
  const Buffer to = first.allocate(kMiB, MemoryUse::workspace);
  const std::vector<std::uint8_t> given(kMiB, 7);
  std::thread other;
  std::string problem;
  int runs = 0;
  const auto recording = first.record([&] {
    first.zero(to.data(), 4096);
    if (++runs < 3) return;
    other = std::thread([&] {
      try {
        const Buffer block = second.allocate(size, MemoryUse::cache);
        second.zero(block.data(), size);
        second.synchronize();
      } catch (const std::exception& error) {
        problem = error.what();
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  for (int run = 0; run < 3; ++run) {
    first.allocate(size, MemoryUse::cache);  // and given back: it is the first engine's as long as nobody else asks
    first.copy_in(to.data(), given.data(), given.size());
    recording->run();
  }
  other.join();
  expect(problem.empty(), "an engine beside one that records gets no memory: " + problem);
  std::vector<std::uint8_t> got(8192), want(8192, 7);
  std::fill_n(want.begin(), 4096, std::uint8_t{0});
  first.copy_out(got.data(), to.data(), got.size());
  expect(got == want, "what was recorded beside another engine gives something else");
}

void check_prefill_fits_the_device() {
  constexpr std::int64_t kBytes = 128;  // of 8B's parts, a key: 32 heads of 128 f32 numbers for each 128 keys
  const CudaBackend backend;
  std::size_t free = 0, total = 0;
  TEMPORA_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const std::int64_t parts = backend.budget().prefill_keys * kBytes;
  expect(parts * 16 <= static_cast<std::int64_t>(total), "a prefill may want " + std::to_string(parts) + " bytes");
}

// A real device says so later, if at all.
void check_copies_stay_inside() {
  if (!device_is_emulated()) return;
  CudaBackend backend;
  const Buffer buffer = backend.allocate(kMiB, MemoryUse::workspace);
  std::vector<char> host(64);
  const auto is_refused = [](const auto& call) {
    try {
      call();
    } catch (const std::runtime_error&) {
      return true;
    }
    return false;
  };
  expect(is_refused([&] { backend.zero(buffer.data(), 4 * kMiB); }), "more is filled than there is");
  expect(is_refused([&] { backend.copy(buffer.data(), host.data(), host.size()); }),
         "host memory passes for a device's");
}

}  // namespace

void run_memory_cases(TestRun& run) {
  const SmallDevice small;
  run.run("memory: blocks are cut and joined", check_blocks_are_cut_and_joined);
  run.run("memory: growing needs are not hoarded", check_growing_needs_are_not_hoarded);
  run.run("memory: an engine that is gone has given all back", check_last_engine_gives_all_back);
  run.run("memory: engines share what none of them uses", check_engines_share);
  run.run("memory: a prefill at once takes a small part of the device", check_prefill_fits_the_device);
  run.run("memory: copies stay inside it", check_copies_stay_inside);
  run.run("memory: an engine waits for memory until another has recorded", check_capture_is_waited_for);
}

}  // namespace tempora::test
