// Runs the threads of a block as fibers on one CPU thread: each goes on until it waits for its warp or its block.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim;

namespace tempora::emulation {
namespace {

constexpr int kLanes = 32;
constexpr int kLargestBlock = 1024;
constexpr std::size_t kStackBytes = std::size_t{96} << 10;

enum class State { ready, in_warp, in_block, done };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t start;
  jmp_buf resume;
  bool started = false;
  State state = State::done;
  dim3 index;
  std::uint64_t bits = 0;  // given to the warp and got from it
  int lane_mask = 0;
  bool value = false;  // given to the block and got from it
};

class BlockRunner {
 public:
  void run(dim3 block, const std::function<void()>& thread);
  void set_schedule(Schedule schedule) { schedule_ = schedule; }
  std::vector<std::int64_t> order(std::int64_t count);

  // Called by a fiber.
  Fiber& current() { return fibers_[static_cast<std::size_t>(current_)]; }
  void wait(State state) {
    current().state = state;
    if (_setjmp(current().resume) == 0) _longjmp(scheduler_, 1);
  }

 private:
  static void main_of_fiber();
  void resume(int number);
  bool run_warp(int warp);
  bool release_warp(int warp);
  bool release_block();

  std::array<Fiber, kLargestBlock> fibers_;
  const std::function<void()>* thread_ = nullptr;
  jmp_buf scheduler_;
  int current_ = 0;
  int count_ = 0;
  Schedule schedule_ = Schedule::ascending;
  std::mt19937_64 random_{1};
};

BlockRunner& runner() {
  static BlockRunner instance;
  return instance;
}

// A fiber's stack is used again and again, for one thread after another.
void BlockRunner::main_of_fiber() {
  for (;;) {
    (*runner().thread_)();
    runner().wait(State::done);
  }
}

void BlockRunner::resume(int number) {
  current_ = number;
  Fiber& fiber = fibers_[static_cast<std::size_t>(number)];
  threadIdx = fiber.index;
  if (_setjmp(scheduler_) != 0) return;
  if (fiber.started) _longjmp(fiber.resume, 1);
  fiber.started = true;
  fiber.stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  // Stacks that end at different places in a page do not fight for the same lines of the cache.
  fiber.start.uc_stack.ss_size = kStackBytes - static_cast<std::size_t>(number % 256) * 64;
  makecontext(&fiber.start, main_of_fiber, 0);
  setcontext(&fiber.start);
}

std::vector<std::int64_t> BlockRunner::order(std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  if (schedule_ == Schedule::descending) std::reverse(order.begin(), order.end());
  if (schedule_ == Schedule::shuffled) std::shuffle(order.begin(), order.end(), random_);
  return order;
}

// All lanes give a value and get that of another lane.
bool BlockRunner::release_warp(int warp) {
  const int first = warp * kLanes;
  if (first + kLanes > count_) return false;
  Fiber* lanes = &fibers_[static_cast<std::size_t>(first)];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane].state != State::in_warp) return false;
    if (lanes[lane].lane_mask != lanes[0].lane_mask) throw std::logic_error("lanes of a warp shuffle apart");
  }
  std::uint64_t given[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) given[lane] = lanes[lane].bits;
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes[lane].bits = given[lane ^ lanes[lane].lane_mask];
    lanes[lane].state = State::ready;
  }
  return true;
}

// Threads that have ended do not take part in a block's barrier.
bool BlockRunner::release_block() {
  bool any = false;
  for (int i = 0; i < count_; ++i) {
    const Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
    if (fiber.state != State::in_block && fiber.state != State::done) return false;
    any = any || (fiber.state == State::in_block && fiber.value);
  }
  for (int i = 0; i < count_; ++i) {
    Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
    if (fiber.state != State::in_block) continue;
    fiber.value = any;
    fiber.state = State::ready;
  }
  return true;
}

// Runs a warp until its lanes wait for the block or have ended. False if there was nothing to run.
bool BlockRunner::run_warp(int warp) {
  bool progress = false;
  const int first = warp * kLanes, lanes = std::min(kLanes, count_ - first);
  const auto lane_order = order(lanes);
  do {
    for (const std::int64_t lane : lane_order) {
      const int number = first + static_cast<int>(lane);
      if (fibers_[static_cast<std::size_t>(number)].state != State::ready) continue;
      progress = true;
      resume(number);
    }
  } while (release_warp(warp));
  return progress;
}

void BlockRunner::run(dim3 block, const std::function<void()>& thread) {
  thread_ = &thread;
  count_ = static_cast<int>(block.x * block.y * block.z);
  for (int i = 0; i < count_; ++i) {
    Fiber& fiber = fibers_[static_cast<std::size_t>(i)];
    const auto n = static_cast<unsigned>(i);
    fiber.index = dim3(n % block.x, n / block.x % block.y, n / block.x / block.y);
    fiber.state = State::ready;
  }
  const int warps = (count_ + kLanes - 1) / kLanes;
  for (;;) {
    bool progress = false;
    for (const std::int64_t warp : order(warps)) progress = run_warp(static_cast<int>(warp)) || progress;
    const bool ended = std::all_of(fibers_.begin(), fibers_.begin() + count_,
                                   [](const Fiber& fiber) { return fiber.state == State::done; });
    if (ended) return;
    if (!release_block() && !progress) {
      for (Fiber& fiber : fibers_) fiber.started = false;
      throw std::logic_error("threads wait for others that do not come: a shuffle or barrier in divergent code");
    }
  }
}

}  // namespace

std::uint64_t exchange_in_warp(unsigned mask, std::uint64_t bits, int lane_mask) {
  Fiber& fiber = runner().current();
  // A mask of fewer lanes is not emulated: such a shuffle never returns, which is reported.
  fiber.bits = bits;
  fiber.lane_mask = mask == 0xFFFFFFFFu ? lane_mask : -1;
  runner().wait(State::in_warp);
  return fiber.bits;
}

bool barrier_or(bool value) {
  Fiber& fiber = runner().current();
  fiber.value = value;
  runner().wait(State::in_block);
  return fiber.value;
}

void set_schedule(Schedule schedule) { runner().set_schedule(schedule); }

cudaError_t check_launch(dim3 grid, dim3 block) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const bool fits = grid.x > 0 && grid.x <= 0x7FFFFFFFu && grid.y > 0 && grid.y <= 65535 && grid.z > 0 &&
                    grid.z <= 65535 && threads > 0 && threads <= kLargestBlock && block.z <= 64;
  return fits ? cudaSuccess : cudaErrorInvalidConfiguration;
}

void run_grid(dim3 grid, dim3 block, const std::function<void()>& thread) {
  blockDim = block;
  const auto plane = static_cast<std::int64_t>(grid.x) * grid.y;
  for (const std::int64_t number : runner().order(plane * grid.z)) {
    blockIdx = dim3(static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                    static_cast<unsigned>(number / plane));
    runner().run(block, thread);
  }
}

}  // namespace tempora::emulation
