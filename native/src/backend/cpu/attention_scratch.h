// What the attention operations share.
#pragma once

#include <algorithm>

#include "cpu_backend.h"
#include "thread_scratch.h"

namespace tempora {

// Large enough for all where there is no window, small enough to be subtracted from a position.
inline std::int32_t attention_window(const AttentionShape& shape) {
  constexpr std::int32_t kAll = 1 << 30;
  return shape.window > 0 ? std::min(shape.window, kAll) : kAll;
}

}  // namespace tempora
