// Memory, streams and events of the emulated device.
#include "cuda_runtime.h"

#include "cuda.h"

#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <unordered_map>
#include <utility>

using tempora::emulation::Event;
using tempora::emulation::Graph;
using tempora::emulation::Stream;

namespace {

// Threads take turns; a graph's or a stream's work runs in that of the thread that waits for it.
std::recursive_mutex device;
using Turn = std::scoped_lock<std::recursive_mutex>;

std::size_t device_bytes = std::size_t{8} << 30;
constexpr std::size_t kAlignment = 256;

struct AlignedDelete {
  void operator()(char* data) const { ::operator delete[](data, std::align_val_t{kAlignment}); }
};
using Memory = std::unique_ptr<char[], AlignedDelete>;

enum class Side { device, host };
struct Block {
  Memory memory;
  std::size_t bytes;
  Side side;
};
std::map<const char*, Block> allocated;  // on the device, and pinned on the host
std::size_t allocated_bytes = 0;
std::unordered_map<Stream*, std::unique_ptr<Stream>> streams;
std::unordered_map<Event*, std::unique_ptr<Event>> events;
std::unordered_map<Graph*, std::unique_ptr<Graph>> graphs;
std::uint64_t launches = 0;  // of graphs
std::string failure;         // of a kernel; sticky, as on a device
int capability[2] = {9, 0};

cudaError_t drain(Stream* stream, std::uint64_t until = UINT64_MAX) {
  try {
    // What runs may not queue anything; it is taken off first all the same, so that a failure does not come twice.
    while (stream->done < until) {
      std::unique_lock lock(stream->mutex);
      if (stream->queue.empty()) break;
      const auto work = std::move(stream->queue.front());
      stream->queue.pop_front();
      ++stream->done;
      lock.unlock();
      if (failure.empty()) work();
    }
  } catch (const std::logic_error& error) {
    failure = error.what();
    // Said here too: tests that let go of guarded memory after this end at once.
    std::fprintf(stderr, "a kernel failed on the emulated device: %s\n", failure.c_str());
  }
  return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

// Ends what this thread captures, and the capture of `used` by any: the call that asks is forbidden meanwhile.
cudaError_t forbid_capture(const Stream* used = nullptr) {
  cudaError_t status = cudaSuccess;
  for (const auto& [stream, owner] : streams) {
    if (stream->graph == nullptr) continue;
    if (stream != used && stream->capturing != std::this_thread::get_id()) continue;
    stream->invalidated = true;
    status = cudaErrorStreamCaptureUnsupported;
  }
  return status;
}

bool is_allocated(const void* data, std::size_t bytes, Side side) {
  const char* at = static_cast<const char*>(data);
  auto found = allocated.upper_bound(at);
  if (found == allocated.begin()) return false;
  --found;
  return found->second.side == side && at + bytes <= found->first + found->second.bytes;
}

cudaError_t allocate(void** data, std::size_t bytes, Side side) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture();
  if (status != cudaSuccess) return status;
  if (allocated_bytes + bytes > device_bytes) return cudaErrorMemoryAllocation;
  Memory memory(static_cast<char*>(::operator new[](bytes, std::align_val_t{kAlignment})));
  std::memset(memory.get(), 0xFF, bytes);
  char* begin = memory.get();
  *data = begin;
  allocated_bytes += bytes;
  allocated[begin] = {std::move(memory), bytes, side};
  return cudaSuccess;
}

cudaError_t release(void* data) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture();
  if (status != cudaSuccess) return status;
  // As on a device: memory is freed after all that was queued.
  for (const auto& [stream, owner] : streams) drain(stream);
  const auto found = allocated.find(static_cast<const char*>(data));
  if (found == allocated.end()) return cudaErrorInvalidValue;
  allocated_bytes -= found->second.bytes;
  allocated.erase(found);
  return cudaSuccess;
}

}  // namespace

void tempora::emulation::set_device_bytes(std::size_t bytes) { device_bytes = bytes; }

cudaError_t cudaGetLastError() { return cudaSuccess; }

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return failure.c_str();
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
  }
  return "unknown error";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"CUDA emulated on the CPU", capability[0], capability[1]};
  return cudaSuccess;
}

void tempora::emulation::set_capability(int major, int minor) {
  capability[0] = major;
  capability[1] = minor;
}

int tempora::emulation::capability_major() { return capability[0]; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  // So few multiprocessors that a block which stays for its lifetime has more than one piece of work.
  constexpr int kMultiprocessors = 3;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = capability[0];
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = capability[1];
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const bool known = std::string(name) == "cuTensorMapEncodeTiled";
  *function = known ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaMalloc(void** data, std::size_t bytes) { return allocate(data, bytes, Side::device); }
cudaError_t cudaFree(void* data) { return release(data); }
cudaError_t cudaMallocHost(void** data, std::size_t bytes) { return allocate(data, bytes, Side::host); }
cudaError_t cudaFreeHost(void* data) { return release(data); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Turn turn(device);
  *free = device_bytes - allocated_bytes;
  *total = device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Turn turn(device);
  const auto is_there = [=](const void* data, bool on_device) {
    return is_allocated(data, bytes, on_device ? Side::device : Side::host);
  };
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (bytes == 0) return cudaSuccess;
  if ((to_device && !is_there(to, true)) || (from_device && !is_there(from, true))) return cudaErrorInvalidValue;
  if (!is_there(to, to_device) || !is_there(from, from_device)) {
    const cudaError_t status = forbid_capture();
    if (status != cudaSuccess) return status;
  }
  stream->add([=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  const Turn turn(device);
  if (bytes == 0) return cudaSuccess;
  if (!is_allocated(data, bytes, Side::device)) return cudaErrorInvalidValue;
  stream->add([=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Turn turn(device);
  auto owner = std::make_unique<Stream>();
  *stream = owner.get();
  streams[*stream] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture(stream);
  return status == cudaSuccess ? drain(stream) : status;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Turn turn(device);
  const cudaError_t status = drain(stream);
  streams.erase(stream);
  return status;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Turn turn(device);
  auto owner = std::make_unique<Event>();
  *event = owner.get();
  events[*event] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture(stream);  // a device would take it for a part of the graph
  if (status != cudaSuccess) return status;
  event->stream = stream;
  const std::scoped_lock lock(stream->mutex);
  event->until = stream->done + stream->queue.size();
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture();
  if (status != cudaSuccess) return status;
  return event->stream == nullptr ? cudaSuccess : drain(event->stream, event->until);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Turn turn(device);
  events.erase(event);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Turn turn(device);
  if (stream->graph != nullptr) return cudaErrorInvalidValue;
  auto owner = std::make_unique<Graph>();
  stream->graph = owner.get();
  stream->capturing = std::this_thread::get_id();
  stream->invalidated = false;
  graphs[stream->graph] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Turn turn(device);
  if (stream->graph == nullptr || stream->capturing != std::this_thread::get_id()) return cudaErrorInvalidValue;
  *graph = std::exchange(stream->graph, nullptr);
  if (!stream->invalidated) return cudaSuccess;
  graphs.erase(*graph);
  *graph = nullptr;
  return cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* runnable, cudaGraph_t graph, unsigned long long) {
  const Turn turn(device);
  constexpr std::size_t kGraphBytes = std::size_t{1} << 20;
  const cudaError_t status = forbid_capture();
  if (status != cudaSuccess) return status;
  if (allocated_bytes + kGraphBytes > device_bytes) return cudaErrorMemoryAllocation;
  auto owner = std::make_unique<Graph>(*graph);
  *runnable = owner.get();
  graphs[*runnable] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t runnable, cudaStream_t stream) {
  const Turn turn(device);
  const cudaError_t status = forbid_capture(stream);
  if (status != cudaSuccess) return status;
  return graphs.contains(runnable) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t runnable, cudaStream_t stream) {
  const Turn turn(device);
  if (!graphs.contains(runnable)) return cudaErrorInvalidValue;
  for (const auto& work : runnable->works) stream->add(work);
  ++launches;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Turn turn(device);
  return graphs.erase(graph) == 1 ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t runnable) { return cudaGraphDestroy(runnable); }

std::uint64_t tempora::emulation::graph_launches() { return launches; }
