// Adapters of random numbers for tests of the engine.
#pragma once

#include "engine_support.h"

namespace tempora::test {

// Of ranks 1, 2 and 3, on every other matrix of the blocks or on all.
AdapterSpec spec_of(const Engine& engine, const ModelShape& shape, bool all, float dropout);
void set_tensors(Engine& engine, int adapter, std::uint64_t seed, double scale_of_b);
int add_random(Engine& engine, const ModelShape& shape, std::uint64_t seed, float dropout = 0, bool all = true);

}  // namespace tempora::test
