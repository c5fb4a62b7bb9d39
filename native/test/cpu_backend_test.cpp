// What is the CPU backend's own: its memory, its threads, and backends side by side.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "backend/cpu/pair_product.h"
#include "backend/cpu/panel_order.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/thread_team.h"

#include "isas.h"
#include "op_cases.h"

namespace tempora::test {
namespace {

void check_accounts() {
  const auto backend = make_cpu_backend(2);
  Buffer weights = backend->allocate(3'000'000, MemoryUse::weights);
  const Buffer cache = backend->allocate(100, MemoryUse::cache);
  expect(reinterpret_cast<std::uintptr_t>(weights.data()) % 64 == 0, "large memory is not aligned");
  expect(reinterpret_cast<std::uintptr_t>(cache.data()) % 64 == 0, "small memory is not aligned");
  const std::size_t used = backend->used(MemoryUse::weights);
  expect(used >= 3'000'000 && used < 3'400'000, "weights are counted as " + std::to_string(used));
  expect(backend->used(MemoryUse::cache) >= 100, "the cache is not counted");
  expect(backend->used(MemoryUse::gradients) == 0, "gradients are counted that do not exist");
  const std::size_t peak = backend->peak();
  expect(peak == used + backend->used(MemoryUse::cache), "the peak is " + std::to_string(peak));
  const void* before = weights.data();
  weights = Buffer();
  expect(backend->used(MemoryUse::weights) == 0, "released memory is counted");
  const Buffer again = backend->allocate(3'000'000, MemoryUse::workspace);
  expect(again.data() == before, "freed memory is not used again");
  expect(backend->peak() == peak, "the peak moved without need");
}

// What one phase has left behind must not push out what the next one asks for again and again.
void check_recent_memory() {
  const auto backend = make_cpu_backend(1);
  {
    std::vector<Buffer> old;
    for (int i = 0; i < 40; ++i) old.push_back(backend->allocate(std::size_t{8} << 20, MemoryUse::weights));
  }
  constexpr std::size_t kBytes = std::size_t{24} << 20, kAt = 12345;  // not at a page's begin, which is touched
  static_cast<char*>(backend->allocate(kBytes, MemoryUse::workspace).data())[kAt] = 42;
  const Buffer again = backend->allocate(kBytes, MemoryUse::workspace);
  expect(static_cast<const char*>(again.data())[kAt] == 42, "memory freed last was given back first");
}

void check_out_of_memory() {
  const auto backend = make_cpu_backend(1);
  const Buffer held = backend->allocate(5 << 20, MemoryUse::weights);
  for (const std::size_t bytes : {std::size_t{1} << 44, std::size_t{1} << 55, SIZE_MAX - 3}) {
    try {
      const Buffer buffer = backend->allocate(bytes, MemoryUse::cache);
    } catch (const OutOfMemory& error) {
      const std::string message = error.what();
      expect(message.find("for cache") != std::string::npos, message);
      expect(message.find("weights 5.0 MiB") != std::string::npos, message);
      expect(message.find("fewer rows") != std::string::npos, message);
      continue;
    }
    throw TestFailure("the system gave " + std::to_string(bytes) + " bytes");
  }
  expect(backend->used(MemoryUse::cache) == 0, "memory that was refused is counted");
}

// The bits of all cases on a backend with so many threads. Products by oneDNN are left out: they are promised to be the
// same again, not to be the same for other numbers of threads.
std::vector<std::uint8_t> results(int threads) {
  const auto backend = make_cpu_backend(threads);
  std::vector<std::uint8_t> bits;
  for (const auto part : {adapter_cases, element_cases, optimizer_cases, generation_cases}) {
    for (const OpCase& op_case : part()) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        Device device(*backend);
        op_case.check(device, dtype);
        bits.insert(bits.end(), device.read_back.begin(), device.read_back.end());
      }
    }
  }
  return bits;
}

void check_thread_counts() {
  const auto want = results(1);
  for (const int threads : {2, 5}) {
    expect(results(threads) == want, std::to_string(threads) + " threads give other bits than one");
  }
}

// The products of pairs of bf16 that a training step has, on so many threads; with `awake` on a team.
std::vector<std::uint8_t> pair_products(int threads, bool awake) {
  const auto backend = make_cpu_backend(threads);
  std::optional<ManyOperations> many;
  if (awake) many.emplace(*backend, DType::bf16);
  Device device(*backend);
  Random random(31);
  // Several parts of rows and of panels, chunks that do not divide evenly, and passes of odd numbers of pairs, of which
  // one has some of both products.
  const std::int64_t rows = 401, k = 450, n = 3000, less = 1210;
  const Tensor x = device.random(random, rows, k, DType::bf16), d_out = device.random(random, rows, n, DType::bf16);
  const Tensor d_less = device.random(random, rows, less, DType::bf16);
  const auto weight = device.weight(device.random(random, n, k, DType::bf16));
  const auto narrow = device.weight(device.random(random, less, k, DType::bf16));
  const Tensor out = device.output(rows, n, DType::bf16), out_less = device.output(rows, less, DType::bf16);
  const Tensor d_x = device.output(rows, k, DType::f32);
  const Tensor gradient = device.output(n, k, DType::f32), gradient_less = device.output(less, k, DType::f32);
  backend->products(x.matrix, {{*weight, out.matrix}, {*narrow, out_less.matrix}});
  backend->transposed_products({{d_out.matrix, *weight}, {d_less.matrix, *narrow}}, d_x.matrix);
  std::optional<double> squares;
  backend->gradient_products(x.matrix, {{d_out.matrix, gradient.matrix, false, &squares},
                                        {d_less.matrix, gradient_less.matrix, false, nullptr}});
  for (const Tensor* tensor : {&out, &out_less, &d_x, &gradient, &gradient_less}) device.read(*tensor);
  expect(squares.has_value(), "the sum of the gradient's squares is not known");
  device.note(std::vector<double>{*squares});
  return device.read_back;
}

void check_pair_products() {
  const auto want = pair_products(1, false);
  for (const int threads : {2, 3, 7}) {
    for (const bool awake : {false, true}) {
      expect(pair_products(threads, awake) == want, std::to_string(threads) + " threads give other bits than one");
    }
  }
}

// Gradients as large as no f32 holds the squares of: their sum is left to whoever adds up in f64.
void check_large_squares() {
  const auto backend = make_cpu_backend(2);
  Device device(*backend);
  Random random(32);
  const Tensor x = device.random(random, 64, 48, DType::bf16), d_out = device.random(random, 64, 80, DType::bf16, 1e20);
  const Tensor gradient = device.output(80, 48, DType::f32);
  std::optional<double> squares;
  backend->gradient_products(x.matrix, {{d_out.matrix, gradient.matrix, false, &squares}});
  expect(!squares.has_value(), "squares are known that are infinite");
  expect(std::isfinite(backend->sum_of_squares({gradient.matrix})), "their sum in f64 is infinite");
}

void check_side_by_side() {
  const auto want = results(2);
  std::vector<std::vector<std::uint8_t>> got(3);
  std::vector<std::string> problems(3);
  std::vector<std::thread> workers;
  for (std::size_t i = 0; i < got.size(); ++i) {
    workers.emplace_back([&, i] {
      try {
        got[i] = results(2);
      } catch (const std::exception& error) {
        problems[i] = error.what();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (std::size_t i = 0; i < got.size(); ++i) {
    expect(problems[i].empty(), problems[i]);
    expect(got[i] == want, "a backend beside others gives other bits");
  }
}

// What the thread sanitizer keeps of each byte is resident too.
#if defined(__SANITIZE_THREAD__)
constexpr bool kCountsResidentBytes = false;
#elif defined(__has_feature)
constexpr bool kCountsResidentBytes = !__has_feature(thread_sanitizer);
#else
constexpr bool kCountsResidentBytes = true;
#endif

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * 4096;
}

// A step that grows must not hold beside its memory what the smaller one before had.
void check_resident_memory() {
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  const auto backend = make_cpu_backend(1);
  const std::size_t before = resident_bytes();
  for (const std::size_t size : {112 * kMiB, 128 * kMiB}) backend->allocate(size, MemoryUse::workspace);
  const Buffer last = backend->allocate(160 * kMiB, MemoryUse::workspace);
  const std::size_t held = resident_bytes() - before;
  expect(held < 200 * kMiB, std::to_string(held / kMiB) + " MiB are resident where 160 were in use at once");
}

// One backend, used by one thread after another, as a pool of workers does.
void check_changing_threads() {
  const auto backend = make_cpu_backend(2);
  for (int i = 0; i < 3; ++i) {
    std::string problem;
    std::thread worker([&] {
      try {
        for (const OpCase& op_case : matmul_cases()) check_case(op_case, *backend, DType::bf16);
        for (const OpCase& op_case : head_cases()) check_case(op_case, *backend, DType::f32);
      } catch (const std::exception& error) {
        problem = error.what();
      }
    });
    worker.join();
    expect(problem.empty(), problem);
  }
}

void check_info() {
  const CpuInfo info = cpu_info();
  expect(!info.name.empty() && info.threads > 0, "the CPU has no name or no threads");
  expect(info.onednn.find('.') != std::string::npos, "oneDNN has no version");
  expect(make_cpu_backend(1)->name() == "cpu " + info.kernels, "the backend and cpu_info disagree on kernels");
}

// More threads than most machines have cores free; plain numbers, so that the thread sanitizer sees what is not in
// order.
void check_team() {
  constexpr int kThreads = 5, kRounds = 400;
  ThreadTeam team(kThreads);
  std::vector<int> ran(kThreads, 0);
  int rounds = 0;
  for (int round = 0; round < kRounds; ++round) {
    if (round % 100 == 0) team.stay_awake();
    if (round % 100 == 50) team.rest();
    const auto work = [&](int thread) { ran[static_cast<std::size_t>(thread)] += rounds == round ? 1 : kRounds; };
    using Work = decltype(work);
    team.run([](const void* data, int thread) { (*static_cast<const Work*>(data))(thread); }, &work);
    for (const int count : ran)
      expect(count == round + 1, "a thread missed a round, or run() came back before its end");
    ++rounds;
  }
}

// Also where there are fewer items than threads, or one of them has more to do than all others.
void check_kept_items() {
  for (const int threads : {1, 2, 5}) {
    for (const std::int64_t count : {0, 1, 3, 64}) {
      std::vector<std::atomic<int>> ran(static_cast<std::size_t>(count));
      std::atomic<int> strangers{0};
      parallel_kept_items(threads, count, [&](std::int64_t item, int thread) {
        if (thread < 0 || thread >= threads) ++strangers;
        if (item == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        ++ran[static_cast<std::size_t>(item)];
      });
      expect(strangers == 0, "an item ran on a thread that is none");
      for (const auto& times : ran) expect(times == 1, "an item did not run once");
    }
  }
}

// How often each item ran and on which thread, and how many ran on another than their range's. Of three items in the
// first range, the first waits, for a while, until there is help.
struct KeptRanges {
  std::vector<std::atomic<int>> ran, thread_of;
  std::atomic<int> helped{0};

  KeptRanges(int threads, const std::vector<std::int64_t>& begins, std::int64_t least_left)
      : ran(static_cast<std::size_t>(begins.back())), thread_of(ran.size()) {
    parallel_kept_ranges(threads, begins, least_left, [&](std::int64_t item, int thread) {
      const auto own = static_cast<std::size_t>(thread), at = static_cast<std::size_t>(item);
      if (item < begins[own] || item >= begins[own + 1]) ++helped;
      for (int i = 0; i < 2000 && begins[1] == 3 && item == 0 && helped == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ++ran[at];
      thread_of[at] = thread;
    });
    for (const auto& times : ran) expect(times == 1, "an item did not run once");
  }
};

// Also where a check fails, the next ones must not find the team.
struct TakenTeam {
  ThreadTeam* const before;
  explicit TakenTeam(ThreadTeam& team) : before(std::exchange(active_team, &team)) {}
  ~TakenTeam() { active_team = before; }
  TakenTeam(const TakenTeam&) = delete;
  TakenTeam& operator=(const TakenTeam&) = delete;
};

void check_kept_ranges() {
  for (const std::int64_t least_left : {1, 2, 1000}) {
    for (const std::vector<std::int64_t>& begins :
         {std::vector<std::int64_t>{0, 40, 40, 43}, {0, 1, 2, 30}, {0, 0, 0, 0}}) {
      const KeptRanges ranges(3, begins, least_left);
      expect(least_left < 1000 || ranges.helped == 0, "a thread helped where too little was left");
    }
  }
  for (const std::int64_t least_left : {1, 2}) {
    const KeptRanges ranges(2, {0, 3, 3}, least_left);
    expect(ranges.helped > 0, "a thread that was done did not help");
    expect(least_left == 1 || ranges.thread_of[2] == 0, "a thread did not leave what was too little");
  }
  // A team of fewer threads than there are ranges.
  ThreadTeam two(2);
  const TakenTeam taken(two);
  const KeptRanges few(3, {0, 2, 4, 9}, 1000);
}

// A step's products twice over, one of them of two weights.
void check_panel_order() {
  const std::vector<char> panels(1000);
  const char* at = panels.data();
  const PanelRun first{{{{at, 4, 10}}}}, second{{{{at + 40, 2, 20}, {at + 400, 6, 30}}}}, third{{{{at + 900, 4, 5}}}};
  PanelOrder order;
  for (const PanelRun& run : {first, second, third}) order.read(run);
  const PanelRun after_first = order.read(first), after_second = order.read(second), after_third = order.read(third);
  expect(after_first.at(0, 4, 2) == at + 40, "the first thread's panels of the next product are elsewhere");
  expect(after_first.at(2, 4, 2) == at + 400 + 2 * 30, "the second thread's panels of the next product are elsewhere");
  expect(after_second.at(1, 2, 2) == at + 910 && after_third.at(1, 2, 2) == at + 20,
         "an order of products was forgotten");
  // Seven panels among three threads begin at 0, 2 and 4; eight begin at 0, 2 and 5.
  expect(after_first.at(4, 7, 3) == at + 400 + 3 * 30, "a thread's panels are foretold by its number");
  expect(PanelRun{}.at(1, 2, 2) == nullptr, "what is not known has an address");
}

// oneDNN's are the others: by tiles, and where there are no such instructions.
void check_own_products() {
  for (const Isa isa : tested_isas()) {
    const bool own = isa != Isa::baseline && isa != Isa::amx;
    expect(multiplies_pairs_of(isa, DType::bf16) == own, std::string("large products of bf16 by ") + isa_name(isa));
    expect(!multiplies_pairs_of(isa, DType::f32), "large products of f32 are not of pairs");
  }
}

void check_narrow_terms() {
  const auto backend = make_cpu_backend(2);
  expect(backend->takes_narrow_terms(DType::bf16), "an adapter's part is not added where a product is written");
  expect(!backend->takes_narrow_terms(DType::f32), "products of f32 are not of pairs");
}

// What a backend's operations give while its threads stay awake, and before and after.
void check_many_operations() {
  const auto backend = make_cpu_backend(3);
  for (const std::int64_t rows : {1, 7, 130}) {
    constexpr std::int64_t kOut = 200, kIn = 96;
    std::vector<float> numbers(static_cast<std::size_t>(std::max(rows, kOut) * kIn));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i * 37 % 101) / 101.0f - 0.5f;
    const auto weight = backend->make_weight(WeightFormat::f32, kOut, kIn);
    backend->copy_in(weight->storage.data(), numbers.data(), static_cast<std::size_t>(kOut * kIn) * 4);
    weight->changed();
    const Buffer in = backend->allocate(static_cast<std::size_t>(rows * kIn) * 4, MemoryUse::workspace);
    backend->copy_in(in.data(), numbers.data(), in.bytes());
    const Buffer out = backend->allocate(static_cast<std::size_t>(rows * kOut) * 4, MemoryUse::workspace);
    const auto results = [&] {
      const Matrix product{out.data(), DType::f32, rows, kOut};
      backend->row_product({in.data(), DType::f32, rows, kIn}, *weight, product, false);
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
      std::vector<float> log_probs(tokens.size());
      const std::vector<double> uniforms(tokens.size(), 0.7);
      backend->sample(product, {}, uniforms.data(), tokens.data(), log_probs.data());
      std::vector<float> all(static_cast<std::size_t>(rows * kOut));
      backend->copy_out(all.data(), out.data(), out.bytes());
      all.insert(all.end(), log_probs.begin(), log_probs.end());
      all.insert(all.end(), tokens.begin(), tokens.end());
      return all;
    };
    const std::vector<float> before = results();
    for (int i = 0; i < 3; ++i) {
      const ManyOperations many(*backend);
      expect(results() == before && results() == before, "threads that stay awake give other numbers");
    }
    expect(results() == before, "threads that were awake give other numbers");
  }
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora::test;
  TestRun run(argc, argv);
  run.run("memory is counted, aligned and used again", check_accounts);
  run.run("memory freed last is kept longest", check_recent_memory);
  if (kCountsResidentBytes) run.run("no more is resident than was in use at once", check_resident_memory);
  run.run("too much memory is refused with a remedy", check_out_of_memory);
  run.run("bits do not depend on the number of threads", check_thread_counts);
  run.run("large products of bf16 are our own from AVX2 on", check_own_products);
  for (const tempora::Isa isa : tested_isas()) {
    if (!tempora::multiplies_pairs_of(isa, tempora::DType::bf16)) continue;
    const std::string by = std::string(" (") + isa_name(isa) + ")";
    setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
    run.run("nor do those of large products of bf16" + by, check_pair_products);
    run.run("they take an adapter's part in" + by, check_narrow_terms);
    run.run("squares too large for f32 are not taken for a gradient's norm" + by, check_large_squares);
    unsetenv("TEMPORA_CPU_KERNELS");
  }
  run.run("backends work side by side", check_side_by_side);
  run.run("a backend moves from thread to thread", check_changing_threads);
  run.run("the CPU is described", check_info);
  run.run("each thread of a team runs each round once, also where there are more of them than cores", check_team);
  run.run("each of the items that threads keep runs once", check_kept_items);
  run.run("each of ranges of any size, and those that are done help", check_kept_ranges);
  run.run("what comes after a product is known once it came", check_panel_order);
  run.run("operations give the same bits while the threads stay awake", check_many_operations);
  return run.finish();
}
