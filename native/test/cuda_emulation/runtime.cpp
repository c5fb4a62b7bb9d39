// Memory, streams and events of the emulated device.
#include "cuda_runtime.h"

#include "cuda.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <utility>

using tempora::emulation::Event;
using tempora::emulation::Stream;

namespace {

std::size_t device_bytes = std::size_t{8} << 30;
constexpr std::size_t kAlignment = 256;

struct AlignedDelete {
  void operator()(char* data) const { ::operator delete[](data, std::align_val_t{kAlignment}); }
};
using Memory = std::unique_ptr<char[], AlignedDelete>;

std::unordered_map<void*, std::pair<Memory, std::size_t>> allocated;
std::size_t allocated_bytes = 0;
std::unordered_map<Stream*, std::unique_ptr<Stream>> streams;
std::unordered_map<Event*, std::unique_ptr<Event>> events;
std::string failure;  // of a kernel; sticky, as on a device
int capability[2] = {9, 0};

cudaError_t drain(Stream* stream) {
  // What runs may not queue anything; it is taken off first all the same, so that a failure does not come twice.
  const auto queue = std::exchange(stream->queue, {});
  try {
    for (const auto& work : queue) {
      if (!failure.empty()) break;
      work();
    }
  } catch (const std::logic_error& error) {
    failure = error.what();
    // Said here too: tests that let go of guarded memory after this end at once.
    std::fprintf(stderr, "a kernel failed on the emulated device: %s\n", failure.c_str());
  }
  return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t allocate(void** data, std::size_t bytes) {
  if (allocated_bytes + bytes > device_bytes) return cudaErrorInvalidValue;
  Memory memory(static_cast<char*>(::operator new[](bytes, std::align_val_t{kAlignment})));
  std::memset(memory.get(), 0xFF, bytes);
  *data = memory.get();
  allocated_bytes += bytes;
  allocated[*data] = {std::move(memory), bytes};
  return cudaSuccess;
}

cudaError_t release(void* data) {
  // As on a device: memory is freed after all that was queued.
  for (const auto& [stream, owner] : streams) drain(stream);
  const auto found = allocated.find(data);
  if (found == allocated.end()) return cudaErrorInvalidValue;
  allocated_bytes -= found->second.second;
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
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorLaunchFailure:
      return failure.c_str();
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
cudaError_t cudaMalloc(void** data, std::size_t bytes) { return allocate(data, bytes); }
cudaError_t cudaFree(void* data) { return release(data); }
cudaError_t cudaMallocHost(void** data, std::size_t bytes) { return allocate(data, bytes); }
cudaError_t cudaFreeHost(void* data) { return release(data); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = device_bytes - allocated_bytes;
  *total = device_bytes;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  stream->queue.push_back([=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  stream->queue.push_back([=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  auto owner = std::make_unique<Stream>();
  *stream = owner.get();
  streams[*stream] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return drain(stream); }

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t status = drain(stream);
  streams.erase(stream);
  return status;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  auto owner = std::make_unique<Event>();
  *event = owner.get();
  events[*event] = std::move(owner);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->stream == nullptr ? cudaSuccess : drain(event->stream);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  events.erase(event);
  return cudaSuccess;
}
