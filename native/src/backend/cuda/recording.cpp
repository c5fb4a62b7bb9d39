#include "recording.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "check.h"
#include "cuda_backend.h"
#include "device_pool.h"

namespace tempora {

void RecordedMemory::begin(Mode mode) {
  if (mode_ != Mode::off) throw std::logic_error("a recording is run by the operations of another one");
  mode_ = mode;
  taken_.clear();
  most_ = 0;
}

std::size_t RecordedMemory::gap_for(std::size_t bytes) const {
  std::size_t begin = 0;
  for (const Place& place : taken_) {
    if (begin + padded(bytes) <= place.begin) break;
    begin = place.end;
  }
  return begin;
}

void RecordedMemory::add(std::size_t begin, std::size_t bytes, const void* data) {
  const auto next = std::ranges::lower_bound(taken_, begin, {}, &Place::begin);
  taken_.insert(next, {begin, begin + padded(bytes), data});
}

void RecordedMemory::forget(const void* data) {
  std::erase_if(taken_, [=](const Place& place) { return place.data == data; });
}

void RecordedMemory::count_taken(const void* data, std::size_t bytes) {
  const std::size_t begin = gap_for(bytes);
  add(begin, bytes, data);
  most_ = std::max(most_, begin + padded(bytes));
}

void* RecordedMemory::take(std::size_t bytes) {
  const std::size_t begin = gap_for(bytes);
  if (blocks_.empty() || begin + padded(bytes) > blocks_.back().bytes()) return nullptr;
  void* data = static_cast<char*>(blocks_.back().data()) + begin;
  add(begin, bytes, data);
  return data;
}

bool RecordedMemory::give_back(const void* data) {
  for (const Buffer& block : blocks_) {
    const char* begin = static_cast<const char*>(block.data());
    if (data < begin || data >= begin + block.bytes()) continue;
    forget(data);
    return true;
  }
  return false;
}

void RecordedMemory::reserve(CudaBackend& backend, std::size_t bytes) {
  if (!blocks_.empty() && blocks_.back().bytes() >= bytes) return;
  blocks_.push_back(backend.allocate(bytes, MemoryUse::workspace));
}

void RecordedMemory::drop_recording() noexcept {
  if (--recordings_ > 0) return;
  // Who is released is asked for here.
  const std::vector<Buffer> blocks = std::exchange(blocks_, {});
}

namespace {

class Phase {
 public:
  Phase(RecordedMemory& memory, RecordedMemory::Mode mode) : memory_(memory) { memory.begin(mode); }
  ~Phase() { memory_.end(); }
  Phase(const Phase&) = delete;
  Phase& operator=(const Phase&) = delete;

 private:
  RecordedMemory& memory_;
};

class CapturedStream {
 public:
  explicit CapturedStream(cudaStream_t stream) : stream_(stream) { DevicePool::instance().begin_capture(stream); }
  ~CapturedStream() { DevicePool::instance().end_capture(stream_); }
  CapturedStream(const CapturedStream&) = delete;
  CapturedStream& operator=(const CapturedStream&) = delete;

 private:
  cudaStream_t stream_;
};

// What a stream is asked for while this lives becomes a graph; without finish() it is forgotten.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream), captured_(std::in_place, stream) {
    TEMPORA_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  }
  ~Capture() {
    if (captured_) {
      cudaStreamEndCapture(stream_, &graph_);
      cudaGetLastError();  // that of the call which is being thrown
    }
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraphExec_t finish() {
    const cudaError_t status = cudaStreamEndCapture(stream_, &graph_);
    captured_.reset();
    check_cuda(status, "cudaStreamEndCapture");
    cudaGraphExec_t runnable = instantiate();
    if (runnable != nullptr) return runnable;
    DevicePool::instance().give_device_unused(stream_);
    runnable = instantiate();
    if (runnable != nullptr) return runnable;
    throw OutOfMemory(
        "out of memory on the device for the graph of a generation's passes; lower its rows and cache tokens, or end"
        " other programs on the device");
  }

 private:
  // With all that the device needs of it. Null where there is no room for that.
  cudaGraphExec_t instantiate() const {
    cudaGraphExec_t runnable = nullptr;
    cudaError_t status = cudaGraphInstantiate(&runnable, graph_, 0);
    if (status == cudaSuccess) {
      status = cudaGraphUpload(runnable, stream_);
      if (status != cudaSuccess) cudaGraphExecDestroy(runnable);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // another try may find room
      return nullptr;
    }
    check_cuda(status, "cudaGraphInstantiate");
    return runnable;
  }

  cudaStream_t stream_;
  std::optional<CapturedStream> captured_;  // until the capture has ended
  cudaGraph_t graph_ = nullptr;
};

}  // namespace

CudaRecording::CudaRecording(CudaBackend& backend, cudaStream_t stream, RecordedMemory& memory,
                             std::function<void()> operations)
    : backend_(backend), stream_(stream), memory_(memory), operations_(std::move(operations)) {
  memory_.add_recording();
}

CudaRecording::~CudaRecording() {
  if (graph_ != nullptr) {
    // Its last run may be under way. Nothing can be done about an error here: the next call will see it too.
    cudaStreamSynchronize(stream_);
    cudaGraphExecDestroy(graph_);
  }
  memory_.drop_recording();
}

void CudaRecording::count() {
  const Phase phase(memory_, RecordedMemory::Mode::counting);
  operations_();
  bytes_ = memory_.counted();
}

void CudaRecording::capture() {
  memory_.reserve(backend_, bytes_);
  const Phase phase(memory_, RecordedMemory::Mode::serving);
  Capture capture(stream_);
  operations_();
  if (memory_.in_use()) throw std::logic_error("operations that are recorded keep memory which they took");
  graph_ = capture.finish();
}

void CudaRecording::run() {
  constexpr int kAsked = 1, kCounted = 2;
  if (runs_ < kAsked) {
    operations_();
  } else if (runs_ < kCounted) {
    count();
  } else {
    if (graph_ == nullptr) capture();
    TEMPORA_CUDA_CHECK(cudaGraphLaunch(graph_, stream_));
  }
  ++runs_;
}

}  // namespace tempora
