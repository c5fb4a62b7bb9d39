// What lies on an engine's thread. Only jobs and tasks of that thread touch it, but for report().
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "engine/engine.h"

namespace tempora::addon {

// Generations, batches and snapshots hold memory of the engine's backend: they go before it does. JavaScript handles
// know them by number, so that a handle that outlives its engine finds nothing instead of freed memory.
class EngineState {
 public:
  Engine& engine() const {
    if (engine_ == nullptr) throw std::runtime_error("the engine was not made");
    return *engine_;
  }
  void open(const ModelShape& shape, EngineOptions options) {
    if (engine_ == nullptr) engine_ = std::make_unique<Engine>(shape, options);
  }

  std::uint64_t add(std::unique_ptr<Generation> generation) {
    generations_.emplace(++last_id_, std::move(generation));
    return last_id_;
  }
  std::uint64_t add(std::unique_ptr<LiveBatch> batch) {
    batches_.emplace(++last_id_, std::move(batch));
    return last_id_;
  }
  std::uint64_t add(std::unique_ptr<Snapshot> snapshot) {
    snapshots_.emplace(++last_id_, std::move(snapshot));
    return last_id_;
  }
  Generation& generation(std::uint64_t id) const { return *find(generations_, id, "the generation is disposed"); }
  LiveBatch& batch(std::uint64_t id) const { return *find(batches_, id, "the batch is disposed"); }
  Snapshot& snapshot(std::uint64_t id) const { return *find(snapshots_, id, "the snapshot is disposed"); }
  void drop(std::uint64_t id) {
    generations_.erase(id);
    batches_.erase(id);
    snapshots_.erase(id);
  }

  void close() {
    generations_.clear();
    batches_.clear();
    snapshots_.clear();
    engine_.reset();
    note_memory();
  }

  // After every job. The JavaScript thread reads the report without waiting for a running job.
  void note_memory() {
    MemoryReport now;
    if (engine_ != nullptr) now = engine_->memory();
    const std::lock_guard lock(mutex_);
    const std::size_t peak = report_.peak;
    report_ = now;
    if (engine_ == nullptr) report_.peak = peak;
    steps_ = engine_ == nullptr ? 0 : engine_->optimizer_steps();
  }
  MemoryReport report() const {
    const std::lock_guard lock(mutex_);
    return report_;
  }
  std::int64_t optimizer_steps() const {
    const std::lock_guard lock(mutex_);
    return steps_;
  }

 private:
  template <typename T>
  static T* find(const std::unordered_map<std::uint64_t, std::unique_ptr<T>>& map, std::uint64_t id,
                 const char* missing) {
    const auto found = map.find(id);
    if (found == map.end()) throw std::logic_error(missing);
    return found->second.get();
  }

  std::unique_ptr<Engine> engine_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Generation>> generations_;
  std::unordered_map<std::uint64_t, std::unique_ptr<LiveBatch>> batches_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Snapshot>> snapshots_;
  std::uint64_t last_id_ = 0;
  mutable std::mutex mutex_;
  MemoryReport report_;
  std::int64_t steps_ = 0;
};

}  // namespace tempora::addon
