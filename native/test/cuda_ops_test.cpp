// Every operation of the CUDA backend: on a device, or, as another build of this file, on the emulated one. Each case
// runs several times and must give the same bits; all memory is guarded and poisoned.
#include <algorithm>
#include <cstdio>

#include "cuda/attention_cases.h"
#include "cuda/guarded_backend.h"
#include "cuda/memory_cases.h"
#include "cuda/narrow_cases.h"
#include "cuda/recording_cases.h"
#include "cuda/schedule.h"
#include "op_cases.h"

namespace tempora::test {
namespace {

// So little that the head's cases need several chunks of the vocabulary.
constexpr std::int64_t kHeadChunkBytes = 64 << 10;

void check_repeatedly(const OpCase& op_case, GuardedCudaBackend& backend, DType dtype) {
  std::vector<std::uint8_t> first;
  for (int run = 0; run < 3; ++run) {
    use_schedule(run);
    Device device(backend);
    op_case.check(device, dtype);
    expect(!device.read_back.empty(), "the case reads nothing back");
    if (run == 0) first = device.read_back;
    expect(device.read_back == first, "run " + std::to_string(run + 1) + " gave other bits");
  }
  expect(!backend.was_broken(), "memory beside a buffer was written");
}

void check_guards(GuardedCudaBackend& backend) {
  for (const std::ptrdiff_t offset : {std::ptrdiff_t{-1}, std::ptrdiff_t{100}}) {
    {
      const Buffer buffer = backend.allocate(100, MemoryUse::workspace);
      backend.zero(static_cast<char*>(buffer.data()) + offset, 1);
    }
    expect(backend.was_broken(), "a write beside a buffer was not seen");
  }
}

void check_memory_counts(GuardedCudaBackend& backend) {
  const std::size_t before = backend.used(MemoryUse::cache);
  {
    const Buffer buffer = backend.allocate(3 << 20, MemoryUse::cache);
    expect(backend.used(MemoryUse::cache) >= before + (3 << 20), "memory in use was not counted");
    expect(backend.peak() >= 3 << 20, "the peak was not counted");
  }
  expect(backend.used(MemoryUse::cache) == before, "released memory is still counted");
}

void check_out_of_memory() {
  CudaBackend backend;
  try {
    const Buffer buffer = backend.allocate(std::size_t{1} << 45, MemoryUse::workspace);
  } catch (const OutOfMemory& error) {
    const std::string message = error.what();
    expect(message.find("33554432 MiB were asked for") != std::string::npos, message);
    // The backend still works.
    const Buffer buffer = backend.allocate(1 << 20, MemoryUse::workspace);
    return backend.synchronize();
  }
  throw TestFailure("32 TiB were allocated");
}

// While it lives the emulated device is one without Hopper's own instructions, and with less memory for a block.
struct OlderDevice {
  OlderDevice() { use_hopper(false); }
  ~OlderDevice() { use_hopper(true); }
  OlderDevice(const OlderDevice&) = delete;
  OlderDevice& operator=(const OlderDevice&) = delete;
};

// A decoding step waits for each kernel: products of one x share one.
void check_kernels(GuardedCudaBackend& backend) {
  Device device(backend);
  Random random(36);
  const Tensor x = device.random(random, 3, 1096, DType::bf16);
  std::vector<std::unique_ptr<Weight>> weights;
  std::vector<Tensor> outs;
  for (const std::int64_t n : {136, 136, 72}) {
    weights.push_back(device.weight(device.random(random, n, 1096, DType::bf16)));
    outs.push_back(device.output(3, n, DType::bf16));
  }
  const auto count = [&](const std::function<void()>& operations) {
    const std::int64_t before = kernels_run();
    operations();
    backend.synchronize();
    return kernels_run() - before;
  };
  const WeightProduct gate{*weights[0], outs[0].matrix}, up{*weights[1], outs[1].matrix},
      other{*weights[2], outs[2].matrix};
  const std::int64_t products = count([&] { backend.row_products(x.matrix, {gate, up, other}); });
  expect(products == 4, "three products, whose splits are added, are " + std::to_string(products) + " kernels");
  const std::int64_t swiglu = count([&] { backend.row_swiglu(x.matrix, gate, up, outs[0].matrix); });
  expect(swiglu == 2, "two products and SwiGLU are " + std::to_string(swiglu) + " kernels");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora;
  using namespace tempora::test;
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) {
    std::printf("no CUDA device: nothing was run (%s)\n", info.problem.c_str());
    return 77;
  }
  std::printf("on %s\n", info.devices.front().c_str());
  TestRun run(argc, argv);
  GuardedCudaBackend backend(kHeadChunkBytes);
  std::vector<OpCase> cases = op_cases();
  if (device_is_emulated()) {
    // Each draw has dozens of barriers of 1024 threads.
    std::erase_if(cases, [](const OpCase& op_case) { return op_case.name.starts_with("sample"); });
    for (OpCase& op_case : sampling_cases(8)) cases.push_back(std::move(op_case));
  }
  for (OpCase& op_case : attention_cases()) cases.push_back(std::move(op_case));
  for (OpCase& op_case : narrow_cases()) cases.push_back(std::move(op_case));
  // Products of rows have kernels of Hopper's own instructions, and others for older devices.
  use_hopper(false);
  GuardedCudaBackend older(kHeadChunkBytes);
  use_hopper(true);
  for (const OpCase& op_case : cases) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      // Sampling knows one type.
      if (dtype == DType::bf16 && op_case.name.starts_with("sample")) continue;
      // Tiles are tensor cores', which take bf16.
      if (dtype == DType::f32 && op_case.name.find("of many tiles") != std::string::npos) continue;
      const std::string name = op_case.name + (dtype == DType::f32 ? " f32" : " bf16");
      run.run(name, [&] { check_repeatedly(op_case, backend, dtype); });
      const bool two = dtype == DType::bf16 && op_case.name.starts_with("row_");
      if (!two || !device_is_emulated()) continue;
      run.run(name + " before Hopper", [&] {
        const OlderDevice here;
        check_repeatedly(op_case, older, dtype);
      });
    }
  }
  if (device_is_emulated()) {
    run.run("products of one x share a kernel", [&] { check_kernels(backend); });
    run.run("products of one x share a kernel before Hopper", [&] {
      const OlderDevice here;
      check_kernels(older);
    });
  }
  run_emulation_cases(run);
  run_recording_cases(run);
  run.run("guards see writes beside a buffer", [&] { check_guards(backend); });
  run.run("memory in use is counted", [&] { check_memory_counts(backend); });
  run.run("out of memory says how much was asked for", check_out_of_memory);
  run_memory_cases(run);
  return run.finish();
}
