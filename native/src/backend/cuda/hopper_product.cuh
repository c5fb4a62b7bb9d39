// The row product of sm_90a. A block has 128 outputs and 8 · P rows of x: one warp brings tiles of 64 inputs of both to
// shared memory, in a ring of stages; two warpgroups of 64 outputs each multiply them. The weight is the product's left
// side, so that few rows cost few columns.
#pragma once

#include <hopper.cuh>
#include <mma.cuh>

#include "device.cuh"
#include "row_products.cuh"
#include "vectors.cuh"

namespace tempora::device {

constexpr int kHopperInputs = 64;    // of a stage: rows of 128 bytes
constexpr int kHopperOutputs = 128;  // of a block
constexpr int kHopperConsumers = 2 * kWarpgroup;
constexpr int kHopperThreads = kHopperConsumers + kWarp;

// Of a block with 8 · P rows.
template <int P>
struct HopperTile {
  static constexpr int kRows = 8 * P;
  static constexpr int kBlocks = P <= 8 ? 2 : 1;  // that a multiprocessor has room for
  static constexpr int kWeightBytes = kHopperOutputs * kHopperInputs * 2, kInputBytes = kRows * kHopperInputs * 2;
  static constexpr int kStageBytes = kWeightBytes + kInputBytes;
  static constexpr int kStages = P == 32 ? 4 : P == 16 ? 6 : P == 8 ? 4 : 5;
  // Tiles start at multiples of 1024 bytes, the launch's memory at one of 16.
  static constexpr std::size_t kSharedBytes = kStages * kStageBytes + 1024;
  // The sums of 64 outputs, by rows of x; padded, so that a quarter warp's rows lie in different banks.
  static constexpr int kSumStride = 68;
  static_assert(2 * kRows * kSumStride * sizeof(float) <= std::size_t{kStages} * kStageBytes);
};

template <int P>
struct HopperRing {
  char* stages;
  std::uint64_t *full, *empty;

  __device__ char* weight(int step) const {
    return stages + step % HopperTile<P>::kStages * HopperTile<P>::kStageBytes;
  }
  __device__ char* inputs(int step) const { return weight(step) + HopperTile<P>::kWeightBytes; }
  __device__ std::uint64_t* full_of(int step) const { return full + step % HopperTile<P>::kStages; }
  __device__ std::uint64_t* empty_of(int step) const { return empty + step % HopperTile<P>::kStages; }
  __device__ static int parity(int step) { return step / HopperTile<P>::kStages % 2; }
};

// One thread's work.
template <int P>
__device__ inline void bring_tiles(const HopperRing<P>& ring, const CUtensorMap* x, const CUtensorMap* weight,
                                   const ProductBlock& block, int steps) {
  for (int step = 0; step < steps; ++step) {
    wait_for_phase(ring.empty_of(step), ring.parity(step) ^ 1);
    arrive_expecting(ring.full_of(step), HopperTile<P>::kStageBytes);
    const int column = block.begin + step * kHopperInputs;
    copy_box(ring.weight(step), weight, column, block.first_output, ring.full_of(step));
    copy_box(ring.inputs(step), x, column, block.first_row, ring.full_of(step));
  }
}

// Multiplies steps [step, end) and gives their stages back. sums = Σ.
template <int P>
__device__ inline void multiply_steps(WarpgroupSums<P>& sums, const HopperRing<P>& ring, int warpgroup, int step,
                                      int end) {
  const bool speaker = threadIdx.x % kWarp == 0;
  for (int at = step; at < end; ++at) {
    wait_for_phase(ring.full_of(at), ring.parity(at));
    const std::uint64_t a = tile_descriptor(ring.weight(at) + warpgroup * (HopperTile<P>::kWeightBytes / 2)),
                        b = tile_descriptor(ring.inputs(at));
    begin_products();
#pragma unroll
    for (int k = 0; k < kHopperInputs / 16; ++k) {
      multiply(sums, a + k * kNextColumns, b + k * kNextColumns, at > step || k > 0);
    }
    commit_products();
    wait_for_products<1>();
    if (at > step && speaker) arrive(ring.empty_of(at - 1));
  }
  wait_for_products<0>();
  settle(sums);
  if (speaker) arrive(ring.empty_of(end - 1));
}

constexpr int kEachOutput = 8;  // of a row, that a thread writes at once

// The first `there` of some neighbours of a row; `from` lies in shared memory.
template <typename T>
__device__ inline void write_outputs(T* to, int there, const float* from, bool accumulate) {
  float sums[kEachOutput], before[kEachOutput];
  load_vector(from, sums);
  if (accumulate) {
    load_part(to, there, before);
#pragma unroll
    for (int i = 0; i < kEachOutput; ++i) sums[i] = before[i] + sums[i];
  }
  store_part(to, there, sums);
}

// Writes a warpgroup's sums [64 outputs, rows] to [rows, n.outputs], turned by way of shared memory so that a row's
// outputs are written together.
template <int P, typename Out>
__device__ inline void write_sums(const WarpgroupSums<P>& sums, float* turned, const RowProducts& all,
                                  const RowProductNumbers& n, const ProductBlock& block) {
  constexpr int kStride = HopperTile<P>::kSumStride, kLanes = 64 / kEachOutput;
  const int thread = threadIdx.x % kWarpgroup, warp = thread / kWarp, lane = thread % kWarp;
#pragma unroll
  for (int p = 0; p < P; ++p) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 8 * p + 2 * (lane % 4) + i % 2, output = 16 * warp + lane / 4 + i / 2 * 8;
      turned[row * kStride + output] = sums.of[p][i];
    }
  }
  synchronize_threads(2 + threadIdx.x / kWarpgroup, kWarpgroup);
  const int output =
      block.first_output + static_cast<int>(threadIdx.x) / kWarpgroup * 64 + thread % kLanes * kEachOutput;
  const int there = min(kEachOutput, n.outputs - output);
  for (int row = thread / kLanes; row < 8 * P; row += kWarpgroup / kLanes) {
    const int to = block.first_row + row;
    if (to >= all.rows) break;
    const float* from = turned + row * kStride + thread % kLanes * kEachOutput;
    if (n.partial != nullptr) {
      const std::int64_t part_row = static_cast<std::int64_t>(block.split) * all.rows + to;
      write_outputs(n.partial + part_row * n.outputs + output, there, from, false);
    } else {
      write_outputs(static_cast<Out*>(n.out) + to * n.out_row + output, there, from, all.accumulate);
    }
  }
}

struct WeightMaps {
  CUtensorMap of[kMostProducts];
};

// One block a tile of a product, or a split of it: ProductBlock. `totals`: a block may take several splits.
template <int P, bool totals, typename Out>
__global__ void __launch_bounds__(kHopperThreads, HopperTile<P>::kBlocks)
    hopper_product_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ WeightMaps weights,
                          const __grid_constant__ RowProducts all) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = HopperTile<P>;
  char* memory = launched_shared();
  __shared__ __align__(8) std::uint64_t full[Tile::kStages], empty[Tile::kStages];
  const HopperRing<P> ring{memory + (1024 - shared_address(memory) % 1024) % 1024, full, empty};
  const auto block = ProductBlock::of<Tile::kRows, kHopperOutputs>(all);
  const RowProductNumbers& n = all.of[block.product];
  const int steps = (block.end - block.begin + kHopperInputs - 1) / kHopperInputs;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      init_barrier(full + stage, 1);
      init_barrier(empty + stage, kHopperConsumers / kWarp);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= kHopperConsumers) {
    if (threadIdx.x == kHopperConsumers) bring_tiles(ring, &x, weights.of + block.product, block, steps);
    return;
  }
  const int warpgroup = threadIdx.x / kWarpgroup;
  WarpgroupSums<P> sums;
  if constexpr (totals) {
    WarpgroupSums<P> split;
    const int split_steps = n.split_inputs / kHopperInputs;
    multiply_steps(sums, ring, warpgroup, 0, min(steps, split_steps));
    for (int step = split_steps; step < steps; step += split_steps) {
      multiply_steps(split, ring, warpgroup, step, min(steps, step + split_steps));
#pragma unroll
      for (int p = 0; p < P; ++p) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums.of[p][i] += split.of[p][i];
      }
    }
  } else {
    multiply_steps(sums, ring, warpgroup, 0, steps);
  }
  // Then nobody reads the stages any more.
  synchronize_threads(1, kHopperConsumers);
  float* turned = reinterpret_cast<float*>(ring.stages) + warpgroup * Tile::kRows * Tile::kSumStride;
  write_sums<P, Out>(sums, turned, all, n, block);
#else
  __trap();  // HopperProduct::make lets no other device come here
#endif
}

}  // namespace tempora::device
