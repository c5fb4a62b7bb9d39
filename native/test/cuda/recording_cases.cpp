#include "recording_cases.h"

#include <functional>
#include <stdexcept>

#include "backend/cuda/cuda_backend.h"
#include "schedule.h"

namespace tempora::test {
namespace {

constexpr AttentionShape kShape{4, 2, 64, 0};
constexpr int kPages = 128;

// Rows whose own pages follow a prompt that they share.
CachePaths paths_of(const std::vector<std::int32_t>& lengths, std::int32_t prompt) {
  CachePaths paths;
  const std::int32_t prompt_pages = (prompt + kCachePage - 1) / kCachePage;
  std::int32_t page = prompt_pages;
  const auto add = [&](std::int32_t first, std::int32_t length) {
    paths.segments.push_back({static_cast<std::int32_t>(paths.pages.size()), length});
    for (std::int32_t i = 0; i * kCachePage < length; ++i) paths.pages.push_back(first + i);
  };
  for (const std::int32_t length : lengths) {
    paths.row_segment.push_back(static_cast<std::int32_t>(paths.segments.size()));
    add(0, prompt);
    add(page, length);
    page += 20;
    paths.position.push_back(prompt + length - 1);
    paths.group.push_back(0);
  }
  paths.row_segment.push_back(static_cast<std::int32_t>(paths.segments.size()));
  return paths;
}

// A product, whose sums are added from splits in memory of its own, and attention, whose plan changes.
void check_replay(DType dtype, int schedule) {
  use_schedule(schedule);
  CudaBackend backend;
  Device device(backend);
  Random random(3);
  const std::int64_t inputs = 1024, columns = 4 * 64;
  const auto weight = device.weight(device.random(random, columns, inputs, dtype, 0.05));
  const Tensor x = device.output(3, inputs, dtype), q = device.output(3, columns, dtype);
  const Tensor out = device.output(3, columns, dtype), want_q = device.output(3, columns, dtype);
  const Tensor want = device.output(3, columns, dtype);
  const Tensor keys = device.random(random, kPages * kCachePage, 2 * 64, dtype);
  const Tensor values = device.random(random, kPages * kCachePage, 2 * 64, dtype);
  std::unique_ptr<CachePlan> plan;
  std::unique_ptr<Recording> recording;
  int recorded = 0;
  // Each row comes to a split more; then they are far more than there is room for.
  for (std::int32_t step = 0; step < 9; ++step) {
    const std::int32_t more = step < 8 ? step : 180;
    const std::vector<std::int32_t> lengths = {1 + more, 124 + more, 17 + more};
    const Tensor fresh = device.random(random, 3, inputs, dtype);
    backend.copy(x.matrix.data, fresh.matrix.data, fresh.matrix.bytes());
    if (!backend.change_plan(plan, paths_of(lengths, step < 8 ? 70 : 700))) recording = nullptr;
    if (recording == nullptr) {
      ++recorded;
      recording = backend.record([&] {
        backend.row_product(x.matrix, *weight, q.matrix, false);
        backend.cached_attention(*plan, kShape, q.matrix, keys.matrix.data, values.matrix.data, out.matrix);
      });
    }
    recording->run();
    const auto fixed = backend.plan_cache(paths_of(lengths, step < 8 ? 70 : 700));
    backend.row_product(x.matrix, *weight, want_q.matrix, false);
    backend.cached_attention(*fixed, kShape, want_q.matrix, keys.matrix.data, values.matrix.data, want.matrix);
    expect(device.read(out) == device.read(want), "step " + std::to_string(step) + " gives other bits when recorded");
  }
  expect(recorded == 2, std::to_string(recorded) + " recordings were made, not 2");
}

// Each is dequantised into memory that is given back while the sums of the one before it are still held.
void check_quantised() {
  CudaBackend backend;
  Device device(backend);
  Random random(7);
  constexpr std::int64_t kRows = 3, kOutputs = 136, kInputs = 1096;
  std::vector<std::unique_ptr<Weight>> weights;
  for (int i = 0; i < 2; ++i) {
    std::vector<float> numbers;
    for (const double value : random.normals(kOutputs * kInputs, 0.1)) numbers.push_back(static_cast<float>(value));
    weights.push_back(backend.make_weight(WeightFormat::nf4, kOutputs, kInputs));
    expect(backend.set_weight(*weights.back(), DType::f32, reinterpret_cast<const std::uint8_t*>(numbers.data())),
           "random numbers are finite");
  }
  const Tensor x = device.output(kRows, kInputs, DType::bf16), gate = device.output(kRows, kOutputs, DType::bf16);
  const Tensor up = device.output(kRows, kOutputs, DType::bf16), out = device.output(kRows, kOutputs, DType::bf16);
  const Tensor want = device.output(kRows, kOutputs, DType::bf16);
  const auto multiply = [&](const Tensor& to) {
    backend.row_swiglu(x.matrix, {*weights[0], gate.matrix}, {*weights[1], up.matrix}, to.matrix);
  };
  const auto recording = backend.record([&] { multiply(out); });
  for (int run = 0; run < 4; ++run) {
    const Tensor fresh = device.random(random, kRows, kInputs, DType::bf16);
    backend.copy(x.matrix.data, fresh.matrix.data, fresh.matrix.bytes());
    recording->run();
    multiply(want);
    expect(device.read(out) == device.read(want), "run " + std::to_string(run) + " gives other bits when recorded");
  }
}

// Gets the number of the run; returns what memory it keeps.
using Operations = std::function<std::vector<Buffer>(CudaBackend& backend, int run)>;

// A third run keeps what the operations are; what cannot be kept is an error then, and the backend goes on working.
template <typename Error>
void expect_refused(const std::string& what, const Operations& operations) {
  CudaBackend backend;
  int runs = 0;
  std::vector<Buffer> kept;
  const auto recording = backend.record([&] { kept = operations(backend, runs++); });
  recording->run();
  recording->run();
  bool refused = false;
  try {
    recording->run();
  } catch (const Error&) {
    refused = true;
  }
  expect(refused, what + " was recorded");
  kept.clear();
  Device device(backend);
  Random random(1);
  const Tensor x = device.random(random, 2, 5, DType::f32), y = device.output(2, 5, DType::f32);
  backend.cast(x.matrix, y.matrix);
  expect(device.read(y) == x.values, "the backend does not work after " + what + " was refused");
}

void check_refusals() {
  const auto workspace = [](CudaBackend& backend, std::size_t bytes) {
    Buffer buffer = backend.allocate(bytes, MemoryUse::workspace);
    backend.zero(buffer.data(), bytes);
    return buffer;
  };
  expect_refused<std::logic_error>("a copy from the host", [=](CudaBackend& backend, int) -> std::vector<Buffer> {
    const std::vector<char> host(64);
    backend.copy_in(workspace(backend, host.size()).data(), host.data(), host.size());
    return {};
  });
  expect_refused<std::logic_error>("more memory than before", [=](CudaBackend& backend, int run) {
    workspace(backend, std::size_t{1000} << run);
    return std::vector<Buffer>();
  });
  expect_refused<std::logic_error>("memory that is kept", [=](CudaBackend& backend, int) {
    std::vector<Buffer> kept;
    kept.push_back(workspace(backend, 1000));
    return kept;
  });
  expect_refused<std::runtime_error>("waiting", [](CudaBackend& backend, int) {
    backend.synchronize();
    return std::vector<Buffer>();
  });
}

// What a real device has left nobody here can say. What only the pool holds makes room.
void check_no_room() {
  if (!device_is_emulated()) return;
  const SmallDevice small;
  CudaBackend backend;
  Device device(backend);
  const Ints from = device.ints({1, 2, 3}), to = device.ints({0, 0, 0});
  const auto recording = backend.record([&] { backend.copy(to.buffer.data(), from.data(), 12); });
  recording->run();
  recording->run();
  std::vector<Buffer> all;
  try {
    for (;;) all.push_back(backend.allocate(std::size_t{1} << 20, MemoryUse::cache));
  } catch (const OutOfMemory&) {
  }
  std::string message;
  try {
    recording->run();
  } catch (const OutOfMemory& error) {
    message = error.what();
  }
  expect(message.find("for the graph") != std::string::npos, "a graph without room ended with '" + message + "'");
  all.clear();
  backend.zero(to.buffer.data(), 12);
  recording->run();
  std::vector<std::int32_t> got(3);
  backend.copy_out(got.data(), to.data(), 12);
  expect(got == std::vector<std::int32_t>{1, 2, 3}, "operations were not recorded when there was room again");
}

void check_later() {
  CudaBackend backend;
  Device device(backend);
  const Ints first = device.ints({1, 2, 3}), second = device.ints({4, 5, 6}), place = device.ints({7, 8, 9});
  backend.copy(place.buffer.data(), first.data(), 12);
  const auto arrival = backend.copy_out_later(place.data(), 12);
  backend.copy(place.buffer.data(), second.data(), 12);
  const auto later = backend.copy_out_later(place.data(), 12);
  const auto read = [](Arrival& from) {
    const auto* ints = reinterpret_cast<const std::int32_t*>(from.wait());
    return std::vector<std::int32_t>(ints, ints + 3);
  };
  expect(read(*arrival) == std::vector<std::int32_t>{1, 2, 3}, "a copy is not of what was there when it was asked for");
  expect(read(*later) == std::vector<std::int32_t>{4, 5, 6}, "the copy after it is not either");
}

void check_continuing() {
  CudaBackend backend;
  Device device(backend);
  const Ints sampled = device.ints({70, -1, 72}), from = device.ints({2, -1, 0, 1}), tokens = device.ints({1, 2, 3, 4});
  backend.continue_tokens(sampled.data(), from.data(), 4, static_cast<std::int32_t*>(tokens.buffer.data()));
  std::vector<std::int32_t> got(4);
  backend.copy_out(got.data(), tokens.data(), 16);
  expect(got == std::vector<std::int32_t>{72, 2, 70, 0}, "rows go on with other tokens than they were given");
}

}  // namespace

void run_recording_cases(TestRun& run) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (int schedule = 0; schedule < 3; ++schedule) {
      run.run("recorded operations give the same bits, order " + std::to_string(schedule) +
                  (dtype == DType::f32 ? " f32" : " bf16"),
              [=] { check_replay(dtype, schedule); });
    }
  }
  run.run("products of quantised weights are recorded", check_quantised);
  run.run("what a graph cannot hold is not recorded", check_refusals);
  run.run("a graph without room says so, and is made when there is room", check_no_room);
  run.run("results that come later are those of their time", check_later);
  run.run("rows go on with the tokens that were chosen", check_continuing);
}

}  // namespace tempora::test
