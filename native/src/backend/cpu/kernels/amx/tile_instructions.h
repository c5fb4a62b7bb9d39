// AMX's tile instructions, one function each. The tests of machines without AMX compile the kernels against
// test/amx_emulation/tile_instructions.h instead, which has the same functions.
//
// Written out as assembly: the compilers' own forms of ldtilecfg and tileloadd do not say that they read memory (gcc
// 12's _tile_loadconfig names 8 of 64 bytes), so that stores to what they read may be dropped or come too late.
#pragma once

#include "../tile_shapes.h"

namespace tempora::TEMPORA_ISA {

inline void load_tile_shapes(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }

inline void release_tiles() { asm volatile("tilerelease"); }

template <int kTile>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"n"(kTile));
}

// Rows `stride` bytes apart.
template <int kTile>
inline void tile_load(const void* from, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "n"(kTile) : "memory");
}

template <int kTile>
inline void tile_store(void* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "n"(kTile) : "memory");
}

// sums f32 [m,n] += left [m,k] · right [k,n] of bf16; right lies in pairs of k: [k/2][n][2].
template <int kSums, int kLeft, int kRight>
inline void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(kSums), "n"(kLeft), "n"(kRight));
}

}  // namespace tempora::TEMPORA_ISA
