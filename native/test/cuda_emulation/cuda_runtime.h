// The part of the CUDA runtime that the CUDA backend uses, on the CPU: its kernels compile as C++ and run here, thread
// by thread, so that their arithmetic is checked where there is no device. Slow: for tests of tiny sizes.
//
// Stricter than a device where it can be:
// - All that is queued on a stream waits until somebody synchronises with it, so that host memory which is reused too
//   early, or read too early, shows.
// - Fresh memory is NaN.
// - Blocks, warps and lanes run in the order that set_schedule chooses; results must not depend on it.
// - A barrier or shuffle that not all threads reach is an error.
// - So is a vector that is read or written at an address which is not aligned to it.
// - While a stream is captured, what a device forbids its thread is an error and ends the capture: to allocate, to
//   wait, to copy from or to host memory that is not pinned. So it is that another thread waits for the stream.
// - What is copied or filled lies within memory that was allocated, on the side that the call names.
// - Tensor cores cut sums off, where a processor would round them.
// - More shared memory than every device gives must be asked for, kernel by kernel.
// What it cannot show: accesses out of bounds (the tests' guards look for them), races of threads that no order of
// whole runs between barriers brings out, and speed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1) : x(x_size), y(y_size), z(z_size) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- what kernels call

namespace tempora::emulation {

// What the 32 lanes of a warp do together, given each lane's part.
using WarpOperation = void (*)(void* const* lanes);
void run_in_warp(WarpOperation operation, void* lane);
inline void only_wait(void* const*) {}

template <typename T>
struct Shuffle {
  T value;
  int lane_mask;
};

template <typename T>
void shuffle_xor(void* const* lanes) {
  T given[32];
  for (int lane = 0; lane < 32; ++lane) given[lane] = static_cast<Shuffle<T>*>(lanes[lane])->value;
  for (int lane = 0; lane < 32; ++lane) {
    auto& shuffle = *static_cast<Shuffle<T>*>(lanes[lane]);
    shuffle.value = given[lane ^ shuffle.lane_mask];
  }
}

// Copies to shared memory that go on beside the thread, for mma.cuh.
char* launched_shared();
void require_shared(const void* data, std::size_t bytes);
void begin_copy(void* to, const void* from, bool there);
void commit_copies();
void wait_for_copies(int pending);

bool barrier_or(bool value);

// Ends the thread's kernel with an error, from where nothing can be thrown. Returns where no kernel runs.
void fail(const std::string& message);

// For hopper.cuh: waits while others go on; barriers of some threads; copies that threads do not wait for by
// themselves; what a thread and what its block have under way.
void wait_until(const std::function<bool()>& there);
void synchronize_threads(int number, int threads);
void deliver(std::function<void()> copy);
struct UnderWay {
  virtual ~UnderWay() = default;
  virtual void check_end() const = 0;  // throws when something still is
};
std::unique_ptr<UnderWay>& thread_state();
std::unique_ptr<UnderWay>& block_state();

enum class Schedule { ascending, descending, shuffled };
void set_schedule(Schedule schedule);

// Which device is emulated, for those who ask from now on: one of 9.0 has Hopper's own instructions.
void set_capability(int major, int minor);
int capability_major();

// The device's memory from now on.
void set_device_bytes(std::size_t bytes);

}  // namespace tempora::emulation

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  // Fewer lanes than all are not emulated.
  if (mask != 0xFFFFFFFFu) throw std::logic_error("a shuffle of a part of a warp");
  tempora::emulation::Shuffle<T> shuffle{value, lane_mask};
  tempora::emulation::run_in_warp(tempora::emulation::shuffle_xor<T>, &shuffle);
  return shuffle.value;
}

inline void __syncwarp() { tempora::emulation::run_in_warp(tempora::emulation::only_wait, nullptr); }

inline void __syncthreads() { tempora::emulation::barrier_or(false); }
inline int __syncthreads_or(int value) { return tempora::emulation::barrier_or(value != 0) ? 1 : 0; }

// Threads of a block take turns, so that nothing comes between.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}

inline std::uint32_t __float_as_uint(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Not contracted with what comes after it.
inline float __fmul_rn(float a, float b) {
  const volatile float product = a * b;
  return product;
}

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
using std::isfinite;
using std::isnan;

// ---- what the host calls

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidConfiguration,
  cudaErrorLaunchFailure,
  cudaErrorStreamCaptureUnsupported,
  cudaErrorStreamCaptureInvalidated
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMultiProcessorCount,
};
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess, cudaDriverEntryPointSymbolNotFound };
constexpr unsigned long long cudaEnableDefault = 0;
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

namespace tempora::emulation {

using Work = std::function<void()>;

struct Graph {
  std::vector<Work> works;
};

struct Stream {
  std::mutex mutex;  // of the queue: other threads may wait for the stream
  std::deque<Work> queue;
  std::uint64_t done = 0;     // works that were taken off the queue so far
  Graph* graph = nullptr;     // while the stream is captured
  std::thread::id capturing;  // the thread that began to
  bool invalidated = false;   // something forbidden was asked for meanwhile

  void add(Work work) {
    const std::scoped_lock lock(mutex);
    if (graph != nullptr) {
      graph->works.push_back(std::move(work));
    } else {
      queue.push_back(std::move(work));
    }
  }
};

// What was queued before it was recorded is done when it has happened.
struct Event {
  Stream* stream = nullptr;
  std::uint64_t until = 0;
};

// Kernels that ran so far.
std::uint64_t kernels_run();
// Graphs that were launched so far.
std::uint64_t graph_launches();

cudaError_t check_launch(dim3 grid, dim3 block, std::size_t shared_bytes);
// What a kernel's launches may ask for. False where no block can have that much.
bool allow_shared(const void* kernel, std::size_t bytes);
bool is_allowed_shared(const void* kernel, std::size_t bytes);
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread);

}  // namespace tempora::emulation

using cudaStream_t = tempora::emulation::Stream*;
using cudaEvent_t = tempora::emulation::Event*;
using cudaGraph_t = tempora::emulation::Graph*;
using cudaGraphExec_t = tempora::emulation::Graph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };

struct cudaDeviceProp {
  char name[64];
  int major, minor;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const std::size_t shared = config->dynamicSmemBytes;
  const cudaError_t status = tempora::emulation::check_launch(grid, block, shared);
  if (status != cudaSuccess) return status;
  if (!tempora::emulation::is_allowed_shared(reinterpret_cast<const void*>(kernel), shared)) {
    return cudaErrorInvalidValue;
  }
  // Copied now, as the parameters of a launch are.
  config->stream->add([=, parameters = std::tuple<Parameters...>(arguments...)] {
    tempora::emulation::run_grid(grid, block, shared, [&] { std::apply(kernel, parameters); });
  });
  return cudaSuccess;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  const bool there =
      tempora::emulation::allow_shared(reinterpret_cast<const void*>(kernel), static_cast<std::size_t>(bytes));
  return there ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* found);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMalloc(void** data, std::size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMallocHost(void** data, std::size_t bytes);
cudaError_t cudaFreeHost(void* data);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* runnable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t runnable, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t runnable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t runnable);
