// The decoder over a paged cache: rows of tokens whose paths lie there, forward only. Prefill and decoding are one pass
// with different rows. What a row becomes depends on its path alone: products and attention are row-stable.
#pragma once

#include <vector>

#include "engine_impl.h"
#include "kv_cache.h"

namespace tempora {

// Input rows of one forward pass.
struct CacheRows {
  std::vector<std::int32_t> tokens, positions, slots;
  PathBuilder paths;
  AdapterPass adapters;
  std::int64_t keys = 0;                  // that the rows see, windows aside
  const Adapter* last_adapter = nullptr;  // of the last row

  // The path's segments are added to `paths` next. Rows of one `group` have all but their last segments in common.
  void begin(std::int32_t token, std::int32_t position, std::int32_t slot, std::int32_t group, const Adapter* adapter);
  // A row that computes and writes what the last one does.
  void repeat_last();
  // Whether a pass over prompts takes no more.
  bool full(const Budget& budget) const {
    return static_cast<std::int64_t>(tokens.size()) >= budget.prefill_rows || keys >= budget.prefill_keys;
  }
};

// The same on the device, [count] each.
struct DeviceRows {
  const std::int32_t *tokens, *positions, *slots;
  std::int64_t count;
};

// Writes the rows' keys and values to their slots. Returns the residual stream after the last block of the last
// `wanted` rows, f32 [wanted,D], in the decoder's scratch arena: of the others that block computes no more
// than attention, and where none is wanted its inputs alone. Takes the rows' paths.
Matrix forward_cached(Engine::Impl& impl, const KvCache& cache, CacheRows& rows, std::int64_t wanted,
                      const CancelFlag* cancel);
Matrix forward_cached(Engine::Impl& impl, const KvCache& cache, const DeviceRows& rows, std::int64_t wanted,
                      const CachePlan& plan, const AdapterPass& adapters, const CancelFlag* cancel);

}  // namespace tempora
