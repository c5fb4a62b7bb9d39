// A weight on the CPU: its storage, and the panels that row products read.
#pragma once

#include "../backend.h"
#include "kernels/kernels.h"

namespace tempora {

class CpuBackend;

struct WeightPanels {
  Buffer data;
  std::int64_t padded_k = 0;  // K as the kernels walk it
};

class CpuWeight : public Weight {
 public:
  using Weight::Weight;
  void changed() override { panels = {}; }

  mutable WeightPanels panels;  // made by the first row product after a change
};

// The panels of a weight, made where they are not there. Used by one thread at a time.
const WeightPanels& panels_of(CpuBackend& backend, const CpuWeight& weight);

}  // namespace tempora
