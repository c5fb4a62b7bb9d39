// The device, its memory and copies.
#include <algorithm>
#include <bit>
#include <cstring>

#include "check.h"
#include "cuda_backend.h"
#include "device_pool.h"

namespace tempora {
namespace {

std::string mebibytes(std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// A share of the device's memory, in the powers of two between.
std::int64_t share(std::int64_t total, std::int64_t parts, std::int64_t least, std::int64_t most) {
  return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::clamp(total / parts, least, most))));
}

// By all of its memory and not by what is free: what is computed at once decides last bits of gradients. Attention's
// parts take some 128 bytes a key of a prefill in 8B: a sixteenth of the memory at most.
Budget budget_of(std::int64_t total) {
  constexpr std::int64_t kMiB = std::int64_t{1} << 20;
  return {.prefill_rows = share(total, 16 * kMiB, 512, 4096),
          .prefill_keys = share(total, 2048, kMiB / 4, 16 * kMiB),
          .decoded_logits = share(total, 128, 64 * kMiB, 512 * kMiB),
          .kept_logits = share(total, 64, 64 * kMiB, 2048 * kMiB),
          .largest_kept_logits = share(total, 32, 512 * kMiB, 4096 * kMiB),
          .next_chunk_first = true,
          .passes_ahead = 1};
}

}  // namespace

CudaBackend::CudaBackend(std::optional<std::int64_t> head_chunk_bytes) {
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) throw std::runtime_error(info.problem);
  TEMPORA_CUDA_CHECK(cudaSetDevice(0));
  name_ = info.devices.front();
  std::size_t free = 0, total = 0;
  TEMPORA_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  budget_ = budget_of(static_cast<std::int64_t>(total));
  head_chunk_bytes_ = head_chunk_bytes.value_or(
      share(static_cast<std::int64_t>(total), 256, std::int64_t{32} << 20, std::int64_t{256} << 20));
  products_ = std::make_unique<CublasLt>();
  hopper_ = HopperProduct::make();
  staging_ = std::make_unique<HostStaging>();
  TEMPORA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  DevicePool::instance().open(stream_);
}

CudaBackend::~CudaBackend() {
  // Nothing can be done about an error here; the process or the device is going away.
  cudaStreamSynchronize(stream_);
  product_workspace_ = Buffer();
  dynamic_maps_ = Buffer();
  DevicePool::instance().close(stream_);
  cudaStreamDestroy(stream_);
}

Buffer CudaBackend::allocate(std::size_t bytes, MemoryUse use) {
  const std::scoped_lock lock(memory_mutex_);
  if (recorded_.mode() == RecordedMemory::Mode::serving) {
    if (void* data = recorded_.take(bytes)) return Buffer(this, data, bytes, use);
    throw std::logic_error("operations that are recorded ask for more memory than when they were counted");
  }
  const DevicePool::Taken taken = DevicePool::instance().take(bytes, stream_);
  if (taken.data == nullptr) throw_out_of_memory(bytes);
  if (recorded_.mode() == RecordedMemory::Mode::counting) recorded_.count_taken(taken.data, bytes);
  used_[static_cast<int>(use)] += taken.bytes;
  std::size_t all = 0;
  for (const std::size_t part : used_) all += part;
  peak_ = std::max(peak_, all);
  return Buffer(this, taken.data, bytes, use);
}

void CudaBackend::throw_out_of_memory(std::size_t bytes) const {
  std::size_t free = 0, total = 0, in_use = 0;
  TEMPORA_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  for (const std::size_t use : used_) in_use += use;
  throw OutOfMemory("out of memory on " + name_ + ": " + mebibytes(bytes) + " were asked for, " + mebibytes(in_use) +
                    " are in use here and " + mebibytes(free) + " of " + mebibytes(total) +
                    " are free; lower max-tokens (or the generation's rows and cache tokens), turn on checkpointing, or"
                    " end other programs on the device");
}

void CudaBackend::release(void* data, std::size_t, MemoryUse use) noexcept {
  const std::scoped_lock lock(memory_mutex_);
  if (recorded_.give_back(data)) return;
  if (recorded_.mode() == RecordedMemory::Mode::counting) recorded_.count_released(data);
  used_[static_cast<int>(use)] -= DevicePool::instance().give_back(data, stream_);
}

std::size_t CudaBackend::used(MemoryUse use) const {
  const std::scoped_lock lock(memory_mutex_);
  return used_[static_cast<int>(use)];
}

std::size_t CudaBackend::peak() const {
  const std::scoped_lock lock(memory_mutex_);
  return peak_;
}

void CudaBackend::copy_in(void* device, const void* host, std::size_t bytes) {
  if (recorded_.mode() == RecordedMemory::Mode::serving) {
    throw std::logic_error("operations that are recorded copy from the host: a graph would copy the same bytes again");
  }
  staging_->copy_in(device, host, bytes, stream_);
}

void CudaBackend::copy_out(void* host, const void* device, std::size_t bytes) {
  TEMPORA_CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
  synchronize();
}

void CudaBackend::copy(void* to, const void* from, std::size_t bytes) {
  TEMPORA_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void CudaBackend::zero(void* device, std::size_t bytes) {
  TEMPORA_CUDA_CHECK(cudaMemsetAsync(device, 0, bytes, stream_));
}

void CudaBackend::synchronize() { TEMPORA_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

std::unique_ptr<Arrival> CudaBackend::copy_out_later(const void* device, std::size_t bytes) {
  return arrivals_.begin(device, bytes, stream_);
}

std::unique_ptr<Recording> CudaBackend::record(std::function<void()> operations) {
  return std::make_unique<CudaRecording>(*this, stream_, recorded_, std::move(operations));
}

// Few sizes, so that few graphs serve a batch whose rows come and go; those of row_product's tiles among them.
std::int64_t CudaBackend::recorded_rows(std::int64_t rows) const {
  const std::int64_t step = rows <= 2 ? 1 : rows <= 8 ? 4 : rows <= 32 ? 8 : rows <= 64 ? 16 : rows <= 256 ? 32 : 64;
  return (rows + step - 1) / step * step;
}

std::unique_ptr<Backend> make_cuda_backend() { return std::make_unique<CudaBackend>(); }

CudaInfo cuda_info() {
  CudaInfo info;
  info.built = true;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();  // forget the failure
    int driver = 0;      // 1000 · major + 10 · minor; 0 where there is no driver
    cudaDriverGetVersion(&driver);
    if (driver == 0) {
      info.problem = "no NVIDIA driver is installed";
    } else if (status == cudaSuccess) {
      info.problem = "the NVIDIA driver lists no device";
    } else {
      info.problem = std::string(cudaGetErrorString(status)) + " (the driver is made for CUDA " +
                     std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) + ")";
    }
    return info;
  }
  std::vector<std::string> names;
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    TEMPORA_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    names.emplace_back(properties.name);
    // sm_80 code runs on 8.x, sm_90a code on 9.0 alone; newer ones compile compute_90's PTX. Work goes to the first
    // device.
    if (device > 0 || properties.major >= 8) continue;
    info.problem = names.front() + " has compute capability " + std::to_string(properties.major) + "." +
                   std::to_string(properties.minor) +
                   "; the kernels want 8.0 or newer (CUDA_VISIBLE_DEVICES chooses the device)";
  }
  if (info.problem.empty()) info.problem = CublasLt::problem();
  if (info.problem.empty()) info.devices = std::move(names);
  return info;
}

}  // namespace tempora
