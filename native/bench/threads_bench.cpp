// How much of a DPO step and of a decoding step one thread does while the others wait, on 1, 2 and 8 threads.
// threads_bench [gaps]: with `gaps`, the longest stretches between parallel regions too, as addresses for
// addr2line -Cfe of this executable: of the region before and of the one after.
//
// Every parallel region enters GNU's OpenMP by GOMP_parallel, oneDNN's included, or a team by ThreadTeam::run: what
// stands here in their places counts them. Times are CPU times of the thread that runs the engine, so that other work
// on the machine does not count.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/thread_team.h"
#include "small_model_support.h"

namespace {

using Region = void (*)(void*);

double seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Gap {
  double seconds = 0;
  int count = 0;
};

// Of the thread that runs the engine.
struct Regions {
  double parallel = 0, last_end = 0;
  int count = 0;
  Region last = nullptr;
  std::map<std::pair<Region, Region>, Gap> gaps;
};
Regions regions;

void restart_regions() {
  regions = Regions{};
  regions.last_end = seconds_now();
}

}  // namespace

namespace {

template <typename Enter>
void count_region(Region region, const Enter& enter) {
  const double start = seconds_now();
  Gap& gap = regions.gaps[{regions.last, region}];
  gap.seconds += start - regions.last_end;
  ++gap.count;
  enter();
  regions.last_end = seconds_now();
  regions.parallel += regions.last_end - start;
  regions.last = region;
  ++regions.count;
}

}  // namespace

extern "C" void GOMP_parallel(Region region, void* data, unsigned threads, unsigned flags) {
  using Parallel = void (*)(Region, void*, unsigned, unsigned);
  static const auto real = reinterpret_cast<Parallel>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  count_region(region, [&] { real(region, data, threads, flags); });
}

// ThreadTeam::run, which the linker puts in these names (see Executables.cmake).
#define TEMPORA_TEAM_RUN _ZN7tempora10ThreadTeam3runEPFvPKviES2_
#define TEMPORA_JOIN(a, b) a##b
#define TEMPORA_NAMED(prefix, name) TEMPORA_JOIN(prefix, name)
using tempora::ThreadTeam;
extern "C" void TEMPORA_NAMED(__real_, TEMPORA_TEAM_RUN)(ThreadTeam* team, ThreadTeam::Task task, const void* data);
extern "C" void TEMPORA_NAMED(__wrap_, TEMPORA_TEAM_RUN)(ThreadTeam* team, ThreadTeam::Task task, const void* data) {
  count_region(reinterpret_cast<Region>(reinterpret_cast<void*>(task)), [&] {
    TEMPORA_NAMED(__real_, TEMPORA_TEAM_RUN)(team, task, data);
  });
}

namespace {

using namespace tempora;

void print_gaps(int steps) {
  std::vector<std::pair<std::pair<Region, Region>, Gap>> gaps(regions.gaps.begin(), regions.gaps.end());
  std::sort(gaps.begin(), gaps.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  gaps.resize(std::min<std::size_t>(gaps.size(), 12));
  const auto place = [](Region region) {
    Dl_info info{};
    if (region == nullptr || dladdr(reinterpret_cast<void*>(region), &info) == 0) return std::string("the start");
    char text[256];
    const auto offset = reinterpret_cast<std::uintptr_t>(region) - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
    std::snprintf(text, sizeof text, "%s+0x%zx", std::strrchr(info.dli_fname, '/') + 1,
                  static_cast<std::size_t>(offset));
    return std::string(text);
  };
  for (const auto& [between, gap] : gaps) {
    std::printf("    %8.3f ms in %4d gaps  %s -> %s\n", gap.seconds / steps * 1e3, gap.count / steps,
                place(between.first).c_str(), place(between.second).c_str());
  }
}

// Seconds that one thread takes for a step of each kind.
std::map<std::string, double> by_oneself;

// Of a measured stretch of `steps` steps. 64 cores take a 64th of what is parallel on one, at best.
void report(const std::string& what, int threads, int steps, double seconds, bool gaps) {
  if (threads == 1) {
    by_oneself[what] = seconds / steps;
    std::printf("%-20s 1 thread   %9.2f ms\n", what.c_str(), seconds / steps * 1e3);
    return;
  }
  if (regions.count == 0) throw std::runtime_error("no parallel region was seen: this OpenMP is not GNU's");
  const double alone = (seconds - regions.parallel) / steps, whole = by_oneself[what];
  std::printf("%-20s %d threads  alone %7.3f ms: %.2f %% of one thread's step, %.0f %% of 64 cores'; %d regions\n",
              what.c_str(), threads, alone * 1e3, 100 * alone / whole, 100 * alone / (alone + (whole - alone) / 64),
              regions.count / steps);
  if (gaps) print_gaps(steps);
  std::fflush(stdout);
}

void measure_training(Engine& engine, int threads, bool gaps) {
  PreferenceStep step;
  step.forest = small_forest(4, 2);
  for (std::int32_t tree = 0; tree < 4; ++tree) step.pairs.insert(step.pairs.end(), {tree * 3 + 1, tree * 3 + 2});
  step.loss.terms = {{LossType::sigmoid, 1.0}};
  step.reference.assign(8, -1000.0);
  step.total_pairs = 4;
  step.total_chosen_tokens = 512;
  OptimizerOptions options;
  options.learning_rate = 1e-6;
  options.max_grad_norm = 1;
  const auto run = [&] {
    engine.preference_step(step, nullptr);
    engine.optimizer_step(options);
  };
  // The second step takes its memory in one piece.
  for (int i = 0; i < 2; ++i) run();
  constexpr int kSteps = 3;
  restart_regions();
  const double start = seconds_now();
  for (int i = 0; i < kSteps; ++i) run();
  report("DPO step and AdamW", threads, kSteps, seconds_now() - start, gaps);
}

void measure_decoding(Engine& engine, int samples, int threads, bool gaps) {
  GenerationRequest request = small_request(samples);
  request.options.sampling.top_p = 0.95f;
  request.options.max_new_tokens = 64;
  request.options.max_cache_tokens = 8192;
  const auto generation = engine.start_generation(request);
  generation->step(8, nullptr);
  constexpr int kSteps = 16;
  restart_regions();
  const double start = seconds_now();
  generation->step(kSteps, nullptr);
  report(std::to_string(samples) + " samples, a token", threads, kSteps, seconds_now() - start, gaps);
}

}  // namespace

int main(int argc, char** argv) {
  const bool gaps = argc > 1 && std::string(argv[1]) == "gaps";
  for (const int threads : {1, 2, 8}) {
    const auto engine = small_engine(threads, 1);
    for (const int samples : {1, 7, 28}) measure_decoding(*engine, samples, threads, gaps);
    measure_training(*engine, threads, gaps);
  }
  return 0;
}
