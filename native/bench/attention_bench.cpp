// Attention on this CPU: GFLOP/s against the multiply-adds that the cores do when they do nothing else.
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "attention_reference.h"
#include "backend/cpu/kernels/kernels.h"
#include "engine/kv_cache.h"

#if TEMPORA_HAVE_X86_ISAS
#include <immintrin.h>
#endif

namespace tempora::attention_test {
namespace {

int threads = 0;

// Of one thread the time it ran, which other programs disturb less than the time that passed.
double now() {
  timespec time;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The best of a few runs, in seconds.
double best_seconds(const std::function<void()>& body) {
  double best = 1e30, total = 0;
  for (int run = 0; run < 3 || (total < 0.5 && run < 100); ++run) {
    const double start = now();
    body();
    const double seconds = now() - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

constexpr std::int64_t kFmaRounds = 60'000'000;

#if TEMPORA_HAVE_X86_ISAS
// Twelve independent chains; returns the number of floating-point operations.
__attribute__((target("avx512f"))) double fma_rounds_512(float* sink) {
  __m512 sums[12], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
  for (auto& sum : sums) sum = _mm512_set1_ps(sink[0]);
  for (std::int64_t i = 0; i < kFmaRounds / 12; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, x, y);
  }
  for (auto& sum : sums) sink[0] += _mm512_cvtss_f32(sum);
  return 2.0 * 16 * static_cast<double>(kFmaRounds / 12 * 12);
}

__attribute__((target("avx2,fma"))) double fma_rounds_256(float* sink) {
  __m256 sums[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
  for (auto& sum : sums) sum = _mm256_set1_ps(sink[0]);
  for (std::int64_t i = 0; i < kFmaRounds / 12; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, x, y);
  }
  for (auto& sum : sums) sink[0] += _mm256_cvtss_f32(sum);
  return 2.0 * 8 * static_cast<double>(kFmaRounds / 12 * 12);
}
#endif

// f32 multiply-adds of all threads, in GFLOP/s; 0 where there is no vector unit to measure.
double fma_peak() {
#if TEMPORA_HAVE_X86_ISAS
  if (!isa_supported(Isa::avx2)) return 0;
  const auto rounds = isa_supported(Isa::avx512) ? fma_rounds_512 : fma_rounds_256;
  double operations = 0;
  const double seconds = best_seconds([&] {
    operations = 0;
#pragma omp parallel num_threads(threads) reduction(+ : operations)
    {
      float sink[1] = {static_cast<float>(omp_get_thread_num())};
      operations += rounds(sink);
    }
  });
  return operations / seconds * 1e-9;
#else
  return 0;
#endif
}

void print(const char* what, double seconds, double operations, double peak) {
  const double rate = operations / seconds * 1e-9;
  std::printf("%-58s %9.3f ms %8.1f GFLOP/s", what, seconds * 1e3, rate);
  if (peak > 0) std::printf("  %5.1f %% of peak", 100 * rate / peak);
  std::printf("\n");
}

double visible_pairs(const ForestLayout& layout, int window) {
  double pairs = 0;
  for (const std::int32_t position : layout.position) {
    pairs += window > 0 ? std::min(position + 1, window) : position + 1;
  }
  return pairs;
}

void bench_tree(Backend& backend, const char* name, const ForestLayout& layout, const AttentionShape& shape,
                DType dtype, double peak) {
  Random random(1);
  const Problem p = random_problem(random, layout, shape);
  const std::int64_t wide = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
  const std::int64_t narrow = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  HostMatrix q(dtype, layout.tokens, wide, p.q), k(dtype, layout.tokens, narrow, p.k);
  HostMatrix v(dtype, layout.tokens, narrow, p.v), d_out(dtype, layout.tokens, wide, p.d_out);
  HostMatrix out(dtype, layout.tokens, wide), lse(DType::f32, layout.tokens, shape.heads);
  HostMatrix d_q(dtype, layout.tokens, wide), d_k(dtype, layout.tokens, narrow), d_v(dtype, layout.tokens, narrow);
  const auto plan = backend.plan_attention(layout);
  const double operations = 4 * visible_pairs(layout, shape.window) * shape.heads * shape.head_dim;
  char what[128];
  const char* type = dtype == DType::f32 ? "f32" : "bf16";
  const double forward = best_seconds(
      [&] { backend.tree_attention(*plan, shape, q.view(), k.view(), v.view(), out.view(), lse.view().f32()); });
  std::snprintf(what, sizeof what, "%s %d/%d heads of %d %s forward", name, shape.heads, shape.kv_heads, shape.head_dim,
                type);
  print(what, forward, operations, peak);
  const double backward = best_seconds([&] {
    backend.tree_attention_backward(*plan, shape, q.view(), k.view(), v.view(), out.view(), lse.view().f32(),
                                    d_out.view(), d_q.view(), d_k.view(), d_v.view());
  });
  std::snprintf(what, sizeof what, "%s %d/%d heads of %d %s backward", name, shape.heads, shape.kv_heads,
                shape.head_dim, type);
  print(what, backward, operations * 2.5, peak);
}

// `samples` rows of one prompt, at their last new token.
void bench_cached(Backend& backend, int samples, int prompt, int generated, DType dtype, double peak) {
  const AttentionShape shape{9, 3, 64, 0};
  const auto own_pages = static_cast<std::int32_t>(pages_for(generated));
  const auto prompt_pages = static_cast<std::int32_t>(pages_for(prompt));
  const std::int32_t pages = prompt_pages + samples * own_pages;
  const std::size_t bytes = backend.cache_bytes(pages, shape, dtype);
  std::vector<std::uint8_t> keys(bytes, 1), values(bytes, 1);
  const auto run_of = [](std::int32_t first, std::int32_t count, std::int32_t length) {
    CachedTokens tokens;
    for (std::int32_t i = 0; i < count; ++i) tokens.pages.push_back(first + i);
    tokens.length = length;
    return tokens;
  };
  const CachedTokens shared = run_of(0, prompt_pages, prompt);
  PathBuilder builder;
  for (std::int32_t sample = 0; sample < samples; ++sample) {
    builder.begin_row(prompt + generated - 1, 0);
    builder.add_segment(shared, prompt);
    builder.add_segment(run_of(prompt_pages + sample * own_pages, own_pages, generated), generated);
  }
  const auto plan = backend.plan_cache(builder.take());
  Random random(2);
  std::normal_distribution<double> normal;
  std::vector<double> queries(static_cast<std::size_t>(samples) * 9 * 64);
  for (double& x : queries) x = normal(random);
  HostMatrix q(dtype, samples, 9 * 64, queries), out(dtype, samples, 9 * 64);
  constexpr int kLayers = 30;
  const double seconds = best_seconds([&] {
    for (int layer = 0; layer < kLayers; ++layer) {
      backend.cached_attention(*plan, shape, q.view(), keys.data(), values.data(), out.view());
    }
  });
  char what[128];
  std::snprintf(what, sizeof what, "cached: %d samples, %d + %d tokens, %d layers, %s", samples, prompt, generated,
                kLayers, dtype == DType::f32 ? "f32" : "bf16");
  print(what, seconds, 4.0 * samples * (prompt + generated) * 9 * 64 * kLayers, peak);
}

int run_all() {
  const auto backend = make_cpu_backend(threads);
  const double peak = fma_peak();
  std::printf("%s, %d threads, f32 multiply-add peak %.0f GFLOP/s\n", backend->name().c_str(), threads, peak);
  const ForestLayout line = layout_of_nodes({{-1, 2048}});
  std::vector<std::pair<std::int32_t, std::int32_t>> pairs;
  for (std::int32_t pair = 0; pair < 4; ++pair) {
    pairs.insert(pairs.end(), {{-1, 128}, {3 * pair, 128}, {3 * pair, 128}});
  }
  const ForestLayout forest = layout_of_nodes(pairs);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    bench_tree(*backend, "2048 tokens,", line, {8, 8, 64, 0}, dtype, peak);
    bench_tree(*backend, "2048 tokens,", line, {8, 2, 128, 0}, dtype, peak);
    bench_tree(*backend, "2048 tokens, window 256,", line, {8, 2, 128, 256}, dtype, peak);
    bench_tree(*backend, "4 pairs of 128 + 2 x 128,", forest, {9, 3, 64, 0}, dtype, peak);
    for (const int samples : {1, 7, 28}) bench_cached(*backend, samples, 128, 128, dtype, peak);
  }
  return 0;
}

}  // namespace
}  // namespace tempora::attention_test

// attention_bench [threads]
int main(int argc, char** argv) {
  tempora::attention_test::threads = argc > 1 ? std::atoi(argv[1]) : tempora::cpu_info().threads;
  return tempora::attention_test::run_all();
}
