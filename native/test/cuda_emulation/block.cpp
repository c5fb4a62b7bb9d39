// Runs the threads of a block as fibers on one CPU thread: each goes on until it waits for its warp or its block.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tempora::emulation {
namespace {

constexpr int kLanes = 32;
constexpr int kLargestBlock = 1024;
// Of a block: an H100's, and where Hopper's instructions are not there, what the least of all devices gives.
constexpr std::size_t kLargestShared = std::size_t{227} << 10, kLeastShared = std::size_t{99} << 10;
constexpr std::size_t kStackBytes = std::size_t{96} << 10;
constexpr int kNamedBarriers = 16;

// A copy to shared memory that has begun.
struct Copy {
  void* to;
  const void* from;
  bool there;
};

struct alignas(16) SharedUnit {
  char bytes[16];
};

enum class State { ready, in_warp, in_block, until, done };

struct Fiber {
  std::unique_ptr<char[]> stack;
  ucontext_t start;
  jmp_buf resume;
  bool started = false;
  State state = State::done;
  dim3 index;
  WarpOperation operation = nullptr;             // that the lanes of its warp do together
  void* lane = nullptr;                          // its part of it
  bool value = false;                            // given to the block and got from it
  std::vector<std::vector<Copy>> copies;         // groups that it has not waited for; the last one is open
  const std::function<bool()>* there = nullptr;  // what it waits for in State::until
  std::unique_ptr<UnderWay> extra;
};

// One of those that some of a block's threads wait at.
struct NamedBarrier {
  int waiting = 0, turns = 0;
};

class BlockRunner {
 public:
  void run(dim3 block, const std::function<void()>& thread);
  // Fibers of a block that failed stay in its midst: the next one has to begin anew.
  void abandon() {
    for (Fiber& fiber : fibers_) fiber.started = false;
  }
  void set_schedule(Schedule schedule) { schedule_ = schedule; }
  void set_shared(std::size_t bytes) { shared_.resize(bytes / sizeof(SharedUnit)); }
  std::vector<std::int64_t> order(std::int64_t count);

  // Called by a fiber.
  char* shared() { return reinterpret_cast<char*>(shared_.data()); }
  void require_shared(const void* data, std::size_t bytes);
  void end_thread();
  void fail(const std::string& message);
  Fiber& current() { return fibers_[static_cast<std::size_t>(current_)]; }
  std::unique_ptr<UnderWay>& extra() { return extra_; }
  void synchronize(int number, int threads);
  void deliver(std::function<void()> copy);
  void wait(State state) {
    current().state = state;
    in_thread_ = false;
    if (_setjmp(current().resume) == 0) _longjmp(scheduler_, 1);
  }

 private:
  static void main_of_fiber();
  void resume(int number);
  bool run_warp(int warp);
  bool release_warp(int warp);
  bool release_block();
  bool deliver_one();

  std::array<Fiber, kLargestBlock> fibers_;
  const std::function<void()>* thread_ = nullptr;
  std::exception_ptr failure_;  // of a thread
  jmp_buf scheduler_;
  int current_ = 0;
  bool in_thread_ = false;
  int count_ = 0;
  Schedule schedule_ = Schedule::ascending;
  std::mt19937_64 random_{1};
  std::vector<SharedUnit> shared_;  // that the launch asked for
  std::array<NamedBarrier, kNamedBarriers> barriers_;
  std::vector<std::function<void()>> on_their_way_;
  std::unique_ptr<UnderWay> extra_;
};

BlockRunner& runner() {
  static BlockRunner instance;
  return instance;
}

// A fiber's stack is used again and again, for one thread after another.
void BlockRunner::main_of_fiber() {
  for (;;) {
    try {
      (*runner().thread_)();
      runner().end_thread();
    } catch (const std::logic_error&) {
      runner().failure_ = std::current_exception();
    }
    runner().wait(State::done);
  }
}

void BlockRunner::resume(int number) {
  current_ = number;
  Fiber& fiber = fibers_[static_cast<std::size_t>(number)];
  threadIdx = fiber.index;
  if (_setjmp(scheduler_) != 0) return;
  in_thread_ = true;
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

// All lanes do one operation together.
bool BlockRunner::release_warp(int warp) {
  const int first = warp * kLanes;
  if (first + kLanes > count_) return false;
  Fiber* lanes = &fibers_[static_cast<std::size_t>(first)];
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane].state != State::in_warp) return false;
    if (lanes[lane].operation != lanes[0].operation) throw std::logic_error("lanes of a warp do different operations");
  }
  void* given[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) given[lane] = lanes[lane].lane;
  lanes[0].operation(given);
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane].state = State::ready;
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

// Vectors are loaded from and copied to the memory that the launch asked for, at multiples of 16 bytes.
void BlockRunner::require_shared(const void* data, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(data), begin = reinterpret_cast<std::uintptr_t>(shared());
  const bool inside = at >= begin && at + bytes <= begin + shared_.size() * sizeof(SharedUnit);
  if (!inside || at % 16 != 0) throw std::logic_error("shared memory is used that the launch did not ask for");
}

void BlockRunner::end_thread() {
  const auto& groups = current().copies;
  if (groups.size() > 1 || !groups.back().empty()) throw std::logic_error("a thread ends while it copies");
  if (current().extra) current().extra->check_end();
}

// The fiber stays where it is, as those of its block do.
void BlockRunner::fail(const std::string& message) {
  if (!in_thread_) return;
  failure_ = std::make_exception_ptr(std::logic_error(message));
  wait(State::done);
}

void BlockRunner::synchronize(int number, int threads) {
  NamedBarrier& barrier = barriers_.at(static_cast<std::size_t>(number));
  const int turn = barrier.turns;
  if (++barrier.waiting == threads) {
    barrier.waiting = 0;
    ++barrier.turns;
  }
  wait_until([&barrier, turn] { return barrier.turns != turn; });
}

// Under one schedule a copy arrives at once, under the others as late as it may: when no thread can go on without it.
void BlockRunner::deliver(std::function<void()> copy) {
  on_their_way_.push_back(std::move(copy));
  if (schedule_ == Schedule::descending) deliver_one();
}

bool BlockRunner::deliver_one() {
  if (on_their_way_.empty()) return false;
  const auto chosen = on_their_way_.begin() + order(static_cast<std::int64_t>(on_their_way_.size())).front();
  const std::function<void()> copy = std::move(*chosen);
  on_their_way_.erase(chosen);
  copy();
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
      Fiber& fiber = fibers_[static_cast<std::size_t>(number)];
      if (fiber.state == State::until && (*fiber.there)()) fiber.state = State::ready;
      if (fiber.state != State::ready) continue;
      progress = true;
      resume(number);
      if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
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
    fiber.copies.assign(1, {});
    fiber.extra.reset();
  }
  barriers_.fill({});
  on_their_way_.clear();
  extra_.reset();
  // NaN, whatever a block before has left there.
  if (!shared_.empty()) std::memset(shared_.data(), 0xFF, shared_.size() * sizeof(SharedUnit));
  const int warps = (count_ + kLanes - 1) / kLanes;
  for (;;) {
    bool progress = false;
    for (const std::int64_t warp : order(warps)) progress = run_warp(static_cast<int>(warp)) || progress;
    const bool ended = std::all_of(fibers_.begin(), fibers_.begin() + count_,
                                   [](const Fiber& fiber) { return fiber.state == State::done; });
    if (ended && !on_their_way_.empty()) throw std::logic_error("a block ends while it copies");
    if (ended && extra_) extra_->check_end();
    if (ended) return;
    if (!release_block() && !progress && !deliver_one()) {
      throw std::logic_error("threads wait for others that do not come: a shuffle or barrier in divergent code");
    }
  }
}

}  // namespace

void run_in_warp(WarpOperation operation, void* lane) {
  Fiber& fiber = runner().current();
  fiber.operation = operation;
  fiber.lane = lane;
  runner().wait(State::in_warp);
}

char* launched_shared() { return runner().shared(); }

void require_shared(const void* data, std::size_t bytes) { runner().require_shared(data, bytes); }

void begin_copy(void* to, const void* from, bool there) {
  require_shared(to, 16);
  if (there && reinterpret_cast<std::uintptr_t>(from) % 16 != 0) throw std::logic_error("a copy from an odd address");
  std::memset(to, 0xFF, 16);
  runner().current().copies.back().push_back({to, from, there});
}

void commit_copies() { runner().current().copies.emplace_back(); }

void wait_for_copies(int pending) {
  auto& groups = runner().current().copies;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const Copy& copy : groups.front()) {
      if (copy.there) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

void wait_until(const std::function<bool()>& there) {
  if (there()) return;
  runner().current().there = &there;
  runner().wait(State::until);
}

void fail(const std::string& message) { runner().fail(message); }
void synchronize_threads(int number, int threads) { runner().synchronize(number, threads); }
void deliver(std::function<void()> copy) { runner().deliver(std::move(copy)); }
std::unique_ptr<UnderWay>& thread_state() { return runner().current().extra; }
std::unique_ptr<UnderWay>& block_state() { return runner().extra(); }

bool barrier_or(bool value) {
  Fiber& fiber = runner().current();
  fiber.value = value;
  runner().wait(State::in_block);
  return fiber.value;
}

void set_schedule(Schedule schedule) { runner().set_schedule(schedule); }

namespace {

// Of the device that is there.
std::size_t largest_shared() { return capability_major() >= 9 ? kLargestShared : kLeastShared; }

std::map<const void*, std::size_t> shared_of_kernels;
std::atomic<std::uint64_t> kernels = 0;  // that ran

}  // namespace

bool allow_shared(const void* kernel, std::size_t bytes) {
  if (bytes > largest_shared()) return false;
  shared_of_kernels[kernel] = bytes;
  return true;
}

bool is_allowed_shared(const void* kernel, std::size_t bytes) {
  constexpr std::size_t kWithoutAsking = std::size_t{48} << 10;
  const auto found = shared_of_kernels.find(kernel);
  return bytes <= (found == shared_of_kernels.end() ? kWithoutAsking : found->second);
}

cudaError_t check_launch(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const bool fits = grid.x > 0 && grid.x <= 0x7FFFFFFFu && grid.y > 0 && grid.y <= 65535 && grid.z > 0 &&
                    grid.z <= 65535 && threads > 0 && threads <= kLargestBlock && block.z <= 64 &&
                    shared_bytes <= largest_shared();
  return fits ? cudaSuccess : cudaErrorInvalidConfiguration;
}

std::uint64_t kernels_run() { return kernels; }

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread) {
  ++kernels;
  blockDim = block;
  gridDim = grid;
  runner().set_shared(shared_bytes);
  const auto plane = static_cast<std::int64_t>(grid.x) * grid.y;
  for (const std::int64_t number : runner().order(plane * grid.z)) {
    blockIdx = dim3(static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                    static_cast<unsigned>(number / plane));
    try {
      runner().run(block, thread);
    } catch (...) {
      runner().abandon();
      throw;
    }
  }
}

}  // namespace tempora::emulation
