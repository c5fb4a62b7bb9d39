// Measures the machine (matrix product and copy at their best), then each operation against the time that these allow.
// ops_bench [threads]; runs about half a minute. ops_bench --head: only the machine and the head in bf16, a few
// seconds; every measurement is then followed by itself as a line of JSON, for `bun run bench`. --machine: the machine
// alone.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace {

using namespace tempora;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The best of some runs, after one that warms up.
double best_seconds(Backend& backend, const std::function<void()>& work) {
  work();
  backend.synchronize();
  double best = 1e30, total = 0;
  for (int runs = 0; runs < 30 && (runs < 3 || total < 0.5); ++runs) {
    const double start = seconds_now();
    work();
    backend.synchronize();
    const double seconds = seconds_now() - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

class Bench {
 public:
  Bench(Backend& backend, DType dtype, bool json)
      : backend_(backend), many_(backend, dtype), dtype_(dtype), json_(json) {}

  Matrix matrix(std::int64_t rows, std::int64_t cols, DType dtype) {
    Matrix m{nullptr, dtype, rows, cols};
    buffers_.push_back(backend_.allocate(m.bytes(), MemoryUse::workspace));
    m.data = buffers_.back().data();
    std::vector<float> host(static_cast<std::size_t>(m.size()));
    for (float& x : host) {
      state_ = state_ * 1664525u + 1013904223u;
      x = static_cast<float>(state_ >> 8) * 0x1p-24f - 0.5f;
    }
    const Buffer staging = backend_.allocate(host.size() * 4, MemoryUse::workspace);
    backend_.copy_in(staging.data(), host.data(), host.size() * 4);
    backend_.cast({staging.data(), DType::f32, rows, cols}, m);
    return m;
  }
  Matrix activation(std::int64_t rows, std::int64_t cols) { return matrix(rows, cols, dtype_); }

  std::unique_ptr<Weight> weight(std::int64_t rows, std::int64_t cols) {
    auto made = backend_.make_weight(format_of(dtype_), rows, cols);
    backend_.copy(made->storage.data(), activation(rows, cols).data, made->storage.bytes());
    return made;
  }

  const std::int32_t* ints(const std::vector<std::int32_t>& values) {
    buffers_.push_back(backend_.allocate(values.size() * 4, MemoryUse::workspace));
    backend_.copy_in(buffers_.back().data(), values.data(), values.size() * 4);
    return static_cast<const std::int32_t*>(buffers_.back().data());
  }

  void measure_machine() {
    const Matrix a = activation(2048, 2048), b = activation(2048, 2048), c = activation(2048, 2048);
    const double seconds = best_seconds(backend_, [&] { backend_.matmul(a, b, c, {.transpose_b = true}); });
    peak_flops_ = 2.0 * 2048 * 2048 * 2048 / seconds;
    const Matrix from = matrix(1 << 14, 1 << 12, DType::f32), to = matrix(1 << 14, 1 << 12, DType::f32);
    const double copy = best_seconds(backend_, [&] { backend_.copy(to.data, from.data, from.bytes()); });
    peak_bytes_ = 2.0 * static_cast<double>(from.bytes()) / copy;
    buffers_.clear();
    std::printf("product of 2048: %.3f TFLOP/s, copy: %.1f GB/s read and written\n", peak_flops_ * 1e-12,
                peak_bytes_ * 1e-9);
    if (json_) std::printf("{\"flops\": %.6g, \"bandwidth\": %.6g}\n", peak_flops_, peak_bytes_);
  }

  // flops and bytes are what the operation cannot do without.
  void report(const std::string& name, double flops, double bytes, const std::function<void()>& work) {
    const double seconds = best_seconds(backend_, work);
    const double floor = std::max(flops / peak_flops_, bytes / peak_bytes_);
    std::printf("%-34s %9.3f ms  floor %9.3f ms  ratio %5.2f  %7.1f GFLOP/s %6.1f GB/s\n", name.c_str(), seconds * 1e3,
                floor * 1e3, seconds / floor, flops / seconds * 1e-9, bytes / seconds * 1e-9);
    if (json_) std::printf("{\"name\": \"%s\", \"seconds\": %.6g, \"floor\": %.6g}\n", name.c_str(), seconds, floor);
    std::fflush(stdout);
  }

  void matmul(const char* name, std::int64_t m, std::int64_t n, std::int64_t k, MatmulOptions options, DType out) {
    const Matrix a = options.transpose_a ? activation(k, m) : activation(m, k);
    const Matrix b = options.transpose_b ? activation(n, k) : activation(k, n);
    const Matrix c = matrix(m, n, out);
    report(name, 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
           static_cast<double>(a.bytes() + b.bytes() + c.bytes()), [&] { backend_.matmul(a, b, c, options); });
    buffers_.clear();
  }

  void products() {
    matmul("matmul forward 576 -> 1536", 512, 1536, 576, {.transpose_b = true}, dtype_);
    matmul("matmul input gradient", 512, 576, 1536, {.accumulate = true}, DType::f32);
    matmul("matmul weight gradient", 1536, 576, 512, {.transpose_a = true, .accumulate = true}, DType::f32);
  }

  void head(std::int64_t rows, std::int64_t cols, std::int64_t vocab) {
    const Matrix hidden = activation(rows, cols);
    const auto kept_bytes = static_cast<std::int64_t>(backend_.kept_logits_bytes(rows, vocab, hidden.dtype));
    const Matrix room = matrix(1, (kept_bytes + 3) / 4, DType::f32), kept{room.data, hidden.dtype, rows, vocab};
    const auto head = weight(vocab, cols);
    const Matrix d_hidden = matrix(rows, cols, DType::f32), d_weight = matrix(vocab, cols, DType::f32);
    const Matrix log_prob = matrix(1, rows, DType::f32), lse = matrix(1, rows, DType::f32);
    const Matrix coefficient = matrix(1, rows, DType::f32);
    std::vector<std::int32_t> token, row_start;
    for (std::int32_t r = 0; r <= rows; ++r) {
      row_start.push_back(r);
      if (r == rows) break;
      token.push_back(static_cast<std::int32_t>(r * 37 % vocab));
    }
    const Edges edges{rows, ints(token), ints(row_start)};
    const double product = 2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(vocab);
    const double bytes = static_cast<double>(head->storage.bytes());
    const double gradient_bytes = bytes + 2.0 * static_cast<double>(d_weight.bytes());
    const auto forward = [&](const Matrix& keep) {
      backend_.head_forward(hidden, *head, edges, log_prob.f32(), lse.f32(), keep);
    };
    const auto backward = [&](const Matrix& of) {
      backend_.head_backward(hidden, *head, edges, coefficient.f32(), lse.f32(), of, d_hidden, d_weight, true);
    };
    report("head forward", product, bytes, [&] { forward(Matrix{}); });
    report("head forward, logits kept", product, bytes + static_cast<double>(kept.bytes()), [&] { forward(kept); });
    report("head backward, logits kept", 2 * product, gradient_bytes, [&] { backward(kept); });
    report("head backward, logits again", 3 * product, gradient_bytes, [&] { backward(Matrix{}); });
    buffers_.clear();
  }

  void packed(std::int64_t n, std::int64_t k) {
    const auto of = weight(n, k);
    for (const std::int64_t m : {1, 7, 28, 64}) {
      const Matrix x = activation(m, k), out = activation(m, n);
      report("packed " + std::to_string(m) + " x " + std::to_string(k) + " -> " + std::to_string(n),
             2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
             static_cast<double>(n * k) * static_cast<double>(size_of(dtype_)),
             [&] { backend_.row_product(x, *of, out, false); });
    }
    buffers_.clear();
  }

  void elements() {
    const std::int64_t t = 1024, d = 576, f = 1536;
    const auto bytes = [](std::initializer_list<Matrix> all) {
      double sum = 0;
      for (const Matrix& m : all) sum += static_cast<double>(m.bytes());
      return sum;
    };
    const Matrix x = matrix(t, d, DType::f32), y = activation(t, d), weight = activation(1, d);
    const Matrix rstd = matrix(1, t, DType::f32), d_x = matrix(t, d, DType::f32), d_weight = matrix(1, d, DType::f32);
    report("rms_norm", 0, bytes({x, y}), [&] { backend_.rms_norm(x, weight.data, 1e-5f, y, rstd.f32()); });
    report("rms_norm backward", 0, bytes({x, x, d_x, d_x}),
           [&] { backend_.rms_norm_backward(x, weight.data, dtype_, rstd.f32(), x, d_x, d_weight.f32()); });
    const Matrix gate = activation(t, f), up = activation(t, f), out = activation(t, f), d_out = activation(t, f);
    report("swiglu", 0, bytes({gate, up, out}), [&] { backend_.swiglu(gate, up, out); });
    const Matrix d_gate = activation(t, f), d_up = activation(t, f);
    report("swiglu backward", 0, bytes({gate, up, d_out, d_gate, d_up, out}),
           [&] { backend_.swiglu_backward(gate, up, d_out, d_gate, d_up, out); });
    std::vector<std::int32_t> counted;
    for (std::int32_t i = 0; i < t; ++i) counted.push_back(i);
    const std::int32_t* positions = ints(counted);
    const Matrix frequencies = matrix(1, 32, DType::f32);
    report("rope", 0, bytes({y, y}), [&] { backend_.rope(y, 64, positions, frequencies.f32(), false); });
    buffers_.clear();

    const Matrix w = activation(4096, 1024), g = matrix(4096, 1024, DType::f32);
    AdamWOptions options;
    options.learning_rate = 1e-4;
    for (const auto& [name, format] :
         {std::pair{"adamw", MomentsFormat::f32}, std::pair{"adamw, moments in bf16", MomentsFormat::bf16},
          std::pair{"adamw, moments in 8 bits", MomentsFormat::blocks8}}) {
      Moments moments = backend_.make_moments(format, w.size());
      report(name, 0, bytes({w, w, g}) + 2.0 * static_cast<double>(moments.bytes()), [&] {
        backend_.adamw({{w, g, &moments}}, options);
      });
    }
    report("sum_of_squares", 0, bytes({g}), [&] { backend_.sum_of_squares({g}); });
    buffers_.clear();

    const Matrix logits = matrix(7, 49152, DType::f32);
    const std::vector<double> uniforms(7, 0.6);
    std::vector<std::int32_t> tokens(7);
    std::vector<float> log_probs(7);
    const auto sample = [&](const char* name, const SamplingOptions& sampling) {
      report(name, 0, bytes({logits}),
             [&] { backend_.sample(logits, sampling, uniforms.data(), tokens.data(), log_probs.data()); });
    };
    sample("sample 7 rows of 49152", {0.7f, 0, 1});
    sample("sample 7 rows, top k 50", {0.7f, 50, 1});
    sample("sample 7 rows, top p 0.9", {0.7f, 0, 0.9f});
    buffers_.clear();
  }

 private:
  Backend& backend_;
  ManyOperations many_;  // as the engine's calls: threads stay awake between operations
  DType dtype_;
  bool json_;
  std::vector<Buffer> buffers_;
  double peak_flops_ = 0, peak_bytes_ = 0;
  // Of the operands' numbers. Were they alike, a row's own logit would be 85, and all other probabilities numbers below
  // the normal ones.
  std::uint32_t state_ = 1;
};

}  // namespace

int main(int argc, char** argv) {
  const std::string option = argc > 1 ? argv[1] : "";
  const bool only_head = option == "--head", only_machine = option == "--machine";
  const auto backend = make_cpu_backend(argc > 1 && !only_head && !only_machine ? std::atoi(argv[1]) : 0);
  const CpuInfo info = cpu_info();
  std::printf("%s, %s kernels, oneDNN %s\n", info.name.c_str(), info.kernels.c_str(), info.onednn.c_str());
  if (only_head || only_machine) {
    Bench bench(*backend, DType::bf16, true);
    bench.measure_machine();
    if (only_head) bench.head(512, 1024, 32000);
    return 0;
  }
  for (const DType dtype : {DType::bf16, DType::f32}) {
    std::printf("\n%s\n", dtype == DType::bf16 ? "bf16" : "f32");
    Bench bench(*backend, dtype, false);
    bench.measure_machine();
    bench.products();
    bench.head(512, 1024, 32000);
    bench.packed(1536, 576);
    bench.packed(49152, 576);
    bench.elements();
  }
}
