#include "arrivals.h"

#include <algorithm>
#include <utility>

#include "check.h"

namespace tempora {

Arrivals::~Arrivals() = default;

Arrivals::Slot::~Slot() {
  if (ended != nullptr) cudaEventDestroy(ended);
  if (pinned != nullptr) cudaFreeHost(pinned);
}

class Arrivals::Copy : public Arrival {
 public:
  Copy(Arrivals& owner, std::unique_ptr<Slot> slot) : owner_(owner), slot_(std::move(slot)) {}
  // The copy may be under way; the slot's next one is queued behind it. There is room for all that were made.
  ~Copy() override { owner_.free_.push_back(std::move(slot_)); }
  const std::uint8_t* wait() override {
    TEMPORA_CUDA_CHECK(cudaEventSynchronize(slot_->ended));
    return static_cast<const std::uint8_t*>(slot_->pinned);
  }

 private:
  Arrivals& owner_;
  std::unique_ptr<Slot> slot_;
};

std::unique_ptr<Arrivals::Slot> Arrivals::take(std::size_t bytes) {
  const auto found = std::ranges::find_if(free_, [=](const auto& slot) { return slot->bytes >= bytes; });
  if (found != free_.end()) {
    auto slot = std::move(*found);
    free_.erase(found);
    return slot;
  }
  auto slot = std::make_unique<Slot>();
  TEMPORA_CUDA_CHECK(cudaMallocHost(&slot->pinned, bytes));
  slot->bytes = bytes;
  TEMPORA_CUDA_CHECK(cudaEventCreateWithFlags(&slot->ended, cudaEventDisableTiming));
  free_.reserve(static_cast<std::size_t>(++made_));
  return slot;
}

std::unique_ptr<Arrival> Arrivals::begin(const void* device, std::size_t bytes, cudaStream_t stream) {
  auto slot = take(bytes);
  TEMPORA_CUDA_CHECK(cudaMemcpyAsync(slot->pinned, device, bytes, cudaMemcpyDeviceToHost, stream));
  TEMPORA_CUDA_CHECK(cudaEventRecord(slot->ended, stream));
  return std::make_unique<Copy>(*this, std::move(slot));
}

}  // namespace tempora
