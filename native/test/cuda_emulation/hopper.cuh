// What the backend's hopper.cuh has, on the emulated device; its comments hold here. Of what the hardware leaves open,
// the worst is done: a copy's target is NaN until it arrives, sums are NaN until their products were waited for and
// they are settled, which are computed only then, from operands that must not have changed since the product began.
// What a device would take and compute wrong is refused (hopper_cases.cpp).
#pragma once

#include "cuda.h"
#include "cuda_runtime.h"

#define __CUDA_ARCH_FEAT_SM90_ALL 1

namespace tempora::device {

constexpr int kWarpgroup = 128;

// Counted from an address that is no multiple of a tile's, as on a device.
std::uint32_t shared_address(const void* p);

void init_barrier(std::uint64_t* barrier, int arrivals);
inline void publish_barriers() {}
void arrive(std::uint64_t* barrier);
void arrive_expecting(std::uint64_t* barrier, int bytes);
void wait_for_phase(std::uint64_t* barrier, int parity);
inline void synchronize_threads(int number, int threads) { emulation::synchronize_threads(number, threads); }

template <int count>
void keep_registers() {}
template <int count>
void take_registers() {}

void copy_box(void* to, const CUtensorMap* map, int column, int row, std::uint64_t* barrier);
inline void prefetch_map(const CUtensorMap*) {}

inline std::uint64_t tile_descriptor(const void* tile) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 / 16} << 32) | (std::uint64_t{1} << 16) |
         ((shared_address(tile) & 0x3ffff) >> 4);
}
inline std::uint64_t turned_descriptor(const void* tile, int next_columns) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 / 16} << 32) |
         (static_cast<std::uint64_t>(next_columns / 16) << 16) | ((shared_address(tile) & 0x3ffff) >> 4);
}
constexpr std::uint64_t kNextColumns = 2, kNextRows = 16 * 128 / 16;

void begin_products();
void commit_products();

template <int P>
struct WarpgroupSums {
  float of[P][4];
};

namespace emulated {

struct Operands {
  std::uint64_t a, b;
  const std::uint32_t* a_registers;  // or null: a is a descriptor
  bool b_turned;
};
void begin_product(float* sums, int pairs, const Operands& operands, bool add);
void settle(float* sums);
void wait_for_products(int pending);

}  // namespace emulated

template <int pending>
void wait_for_products() {
  emulated::wait_for_products(pending);
}
template <int P>
void settle(WarpgroupSums<P>& sums) {
  emulated::settle(sums.of[0]);
}

template <int P>
void multiply(WarpgroupSums<P>& s, std::uint64_t a, std::uint64_t b, bool add) {
  emulated::begin_product(s.of[0], P, {a, b, nullptr, false}, add);
}
template <int P>
void multiply_turned(WarpgroupSums<P>& s, const std::uint32_t (&a)[4], std::uint64_t b, bool add) {
  emulated::begin_product(s.of[0], P, {0, b, a, true}, add);
}

}  // namespace tempora::device
