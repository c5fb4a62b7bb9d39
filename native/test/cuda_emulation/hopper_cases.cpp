// What the emulated device refuses of Hopper's instructions: a device would take it and compute something else.
#include <hopper.cuh>

#include <cmath>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "access_cases.h"
#include "cuda/schedule.h"
#include "test_support.h"

namespace tempora::test {
namespace {

using namespace device;

constexpr int kRows = 64, kColumns = 64, kTileBytes = kRows * kColumns * 2;

// What a thread of the only warpgroup works with: a tile of ones that a copy brought, and ones in registers.
struct Bench {
  char* tile;
  WarpgroupSums<kColumns / 8> sums;
  std::uint32_t weights[2][4];  // two steps of 16 inputs

  void multiply_weights(int step, std::uint64_t b) { multiply_turned(sums, weights[step], b, step > 0); }
  std::uint64_t rows(int step) const {
    return turned_descriptor(tile, kTileBytes) + static_cast<std::uint64_t>(step) * kNextRows;
  }
};

void run_warpgroup(const std::function<void(Bench&)>& thread) {
  std::vector<std::uint16_t> ones(static_cast<std::size_t>(kRows * kColumns), 0x3F80);
  CUtensorMap map;
  const cuuint64_t size[] = {kColumns, kRows}, row_bytes[] = {kColumns * 2};
  const cuuint32_t box[] = {kColumns, kRows}, steps[] = {1, 1};
  expect(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, ones.data(), size, row_bytes, box, steps,
                                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS,
         "no map of a tile");
  static std::uint64_t full;
  emulation::run_grid(dim3(1), dim3(kWarpgroup), kTileBytes + 1024, [&] {
    char* memory = emulation::launched_shared();
    Bench bench{memory + (1024 - shared_address(memory) % 1024) % 1024, {}, {}};
    for (auto& step : bench.weights) {
      for (std::uint32_t& word : step) word = 0x3F803F80;
    }
    if (threadIdx.x == 0) init_barrier(&full, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      arrive_expecting(&full, kTileBytes);
      copy_box(bench.tile, &map, 0, 0, &full);
    }
    wait_for_phase(&full, 0);
    thread(bench);
  });
}

void expect_refused(const std::string& why, const std::function<void(Bench&)>& thread) {
  try {
    run_warpgroup(thread);
  } catch (const std::logic_error& error) {
    return expect(error.what() == why, error.what());
  }
  throw TestFailure("it was taken");
}

void check_product() {
  run_warpgroup([](Bench& bench) {
    begin_products();
    for (int step = 0; step < 2; ++step) bench.multiply_weights(step, bench.rows(step));
    commit_products();
    wait_for_products<0>();
    expect(std::isnan(bench.sums.of[0][0]), "sums are there before they are settled");
    settle(bench.sums);
    for (const auto& four : bench.sums.of) {
      for (const float sum : four) expect(sum == 32, "a sum of 32 ones is " + std::to_string(sum));
    }
  });
}

void check_operand_of_threads() {
  expect_refused("a product reads shared memory that threads wrote, not copies", [](Bench& bench) {
    if (threadIdx.x == 0) bench.tile[1] = 0x40;
    __syncthreads();
    begin_products();
    bench.multiply_weights(0, bench.rows(0));
    commit_products();
    wait_for_products<0>();
  });
}

void check_registers_that_change() {
  expect_refused("registers changed while a product read them", [](Bench& bench) {
    begin_products();
    bench.multiply_weights(0, bench.rows(0));
    commit_products();
    bench.weights[0][3] = 0;
    wait_for_products<0>();
  });
}

void check_group_without_fence() {
  expect_refused("products begin without a fence", [](Bench& bench) {
    begin_products();
    bench.multiply_weights(0, bench.rows(0));
    commit_products();
    bench.weights[1][0] = 0;
    bench.multiply_weights(1, bench.rows(1));
    commit_products();
    wait_for_products<0>();
  });
}

void check_warps_that_differ() {
  expect_refused("warps of a warpgroup multiply different operands", [](Bench& bench) {
    begin_products();
    bench.multiply_weights(0, bench.rows(threadIdx.x / 32 == 2 ? 1 : 0));
    commit_products();
    wait_for_products<0>();
  });
  expect_refused("warps of a warpgroup begin different numbers of products", [](Bench& bench) {
    begin_products();
    if (threadIdx.x / 32 != 2) bench.multiply_weights(0, bench.rows(0));
    commit_products();
    wait_for_products<0>();
  });
}

}  // namespace

void run_emulation_cases(TestRun& run) {
  run.run("a warpgroup multiplies", check_product);
  run.run("operands that threads wrote are refused", check_operand_of_threads);
  run.run("registers that change under a product are refused", check_registers_that_change);
  run.run("a group of products without a fence is refused", check_group_without_fence);
  run.run("warps that do not do the same are refused", check_warps_that_differ);
  run_access_cases(run);
}

}  // namespace tempora::test
