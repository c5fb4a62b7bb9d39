// In which order weights' panels are read: the layers' products come in the same order at each decoding step, so that
// the panels of a product can be asked for while the one before it computes. (Tiles do not ask ahead.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace tempora {

// Side by side.
struct Panels {
  const char* data = nullptr;
  std::int64_t count = 0, bytes = 0;  // bytes of one
};

// Those of at most three weights that are multiplied by at once, split among the threads.
struct PanelRun {
  std::array<Panels, 3> parts;

  // Where the thread begins whose part of `of` other panels begins at `begin`, both split as parallel_ranges does; null
  // where that is not known.
  const void* at(std::int64_t begin, std::int64_t of, std::int64_t threads) const {
    const std::int64_t thread = ((begin + 1) * threads + of - 1) / of - 1;
    std::int64_t panel = (parts[0].count + parts[1].count + parts[2].count) * thread / threads;
    for (const Panels& part : parts) {
      if (panel < part.count) return part.data + panel * part.bytes;
      panel -= part.count;
    }
    return nullptr;
  }
};

class PanelOrder {
 public:
  // `now` is read. Returns what was read after it the last time, which may no longer be there: only addresses to ask
  // for.
  const PanelRun& read(const PanelRun& now) {
    if (following_.size() > kMost) following_.clear();
    following_[last_] = now;
    last_ = now.parts[0].data;
    return following_[last_];
  }

 private:
  // More than the products of a large model's step; panels that are made anew may be elsewhere.
  static constexpr std::size_t kMost = 4096;

  const char* last_ = nullptr;
  std::unordered_map<const char*, PanelRun> following_;
};

}  // namespace tempora
