// Hopper's own instructions (sm_90a): bulk copies of a matrix's tiles to shared memory, barriers that count their
// bytes, and products of a warpgroup (128 threads) that read both operands from there.
//
// A tile of bf16 in shared memory has rows of 64 numbers, 128 bytes, and starts at a multiple of 1024 bytes; the copy
// lays the 16-byte pieces of row r at their place XOR r % 8 (CU_TENSOR_MAP_SWIZZLE_128B), where the product expects
// them.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace tempora::device {

constexpr int kWarpgroup = 128;

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// ---- barriers: a phase ends when `arrivals` threads arrived and the bytes that were announced have come.
__device__ inline void init_barrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Makes new barriers known to the copies.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }

__device__ inline void arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}

__device__ inline void arrive_expecting(std::uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Returns when the phase of that parity has ended; the phase before the first one has parity 1 and has ended.
__device__ inline void wait_for_phase(std::uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Waits for all of `threads` threads that name the same barrier (1 to 15; 0 is __syncthreads).
__device__ inline void synchronize_threads(int number, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
}

// ---- copies: a box of the matrix that the map describes, from that column and row on, zeros behind its edges.
__device__ inline void copy_box(void* to, const CUtensorMap* map, int column, int row, std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];\n" ::"r"(
          shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}

__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

// ---- products. What the instruction is told of an operand (PTX ISA, "Matrix Descriptor Format"): the address and,
// from eight rows to the next, 1024 bytes, both in pieces of 16; swizzled by 128 bytes. 16 columns on lie 2 further.
__device__ inline std::uint64_t tile_descriptor(const void* tile) {
  return (std::uint64_t{1} << 62) | (std::uint64_t{1024 / 16} << 32) | (std::uint64_t{1} << 16) |
         ((shared_address(tile) & 0x3ffff) >> 4);
}
constexpr std::uint64_t kNextColumns = 2;

// Before the first product, and where the sums were touched by others since.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
// Ends a group of products.
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Waits for all groups but the last `pending`.
template <int pending>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(pending) : "memory");
}

// The sums of 64 x 8 · P numbers: of thread t, warp w = t / 32 of the warpgroup, g = t % 32 / 4, c = 2 · (t % 4),
// of[p] is (row 16 w + g, column 8 p + c), (the same, c + 1), (row + 8, c), (row + 8, c + 1).
template <int P>
struct WarpgroupSums {
  float of[P][4];
};

// Behind a wait: keeps what reads the sums from being moved before it, since the compiler does not know that the wait
// is for them.
template <int P>
__device__ inline void settle(WarpgroupSums<P>& sums) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(sums.of[p][i])::"memory");
  }
}

#define TEMPORA_SUMS_1(p) "+f"(s.of[p][0]), "+f"(s.of[p][1]), "+f"(s.of[p][2]), "+f"(s.of[p][3])
#define TEMPORA_SUMS_2(p) TEMPORA_SUMS_1(p), TEMPORA_SUMS_1(p + 1)
#define TEMPORA_SUMS_4(p) TEMPORA_SUMS_2(p), TEMPORA_SUMS_2(p + 2)
#define TEMPORA_SUMS_8(p) TEMPORA_SUMS_4(p), TEMPORA_SUMS_4(p + 4)
#define TEMPORA_SUMS_16(p) TEMPORA_SUMS_8(p), TEMPORA_SUMS_8(p + 8)
#define TEMPORA_SUMS_32(p) TEMPORA_SUMS_16(p), TEMPORA_SUMS_16(p + 16)

#define TEMPORA_NAMES_4 "%0, %1, %2, %3"
#define TEMPORA_NAMES_8 TEMPORA_NAMES_4 ", %4, %5, %6, %7"
#define TEMPORA_NAMES_16 TEMPORA_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define TEMPORA_NAMES_32 \
  TEMPORA_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TEMPORA_NAMES_64                                                             \
  TEMPORA_NAMES_32                                                                   \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TEMPORA_NAMES_128                                                                        \
  TEMPORA_NAMES_64                                                                               \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// s = (add ? s : 0) + a · bᵀ: 64 rows of a, n rows of b, 16 columns of both. By a whole warpgroup; the sums may be read
// after the group of products was waited for.
#define TEMPORA_PRODUCT(n, pairs, names, first, second, third)                                           \
  __device__ inline void multiply(WarpgroupSums<pairs>& s, std::uint64_t a, std::uint64_t b, bool add) { \
    asm volatile(                                                                                        \
        "{\n"                                                                                            \
        ".reg .pred add;\n"                                                                              \
        "setp.ne.b32 add, " third                                                                        \
        ", 0;\n"                                                                                         \
        "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, " first ", " second        \
        ", add, 1, 1, 0, 0;\n"                                                                           \
        "}\n"                                                                                            \
        : TEMPORA_SUMS_##pairs(0)                                                                        \
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                                   \
  }
TEMPORA_PRODUCT("8", 1, TEMPORA_NAMES_4, "%4", "%5", "%6")
TEMPORA_PRODUCT("16", 2, TEMPORA_NAMES_8, "%8", "%9", "%10")
TEMPORA_PRODUCT("32", 4, TEMPORA_NAMES_16, "%16", "%17", "%18")
TEMPORA_PRODUCT("64", 8, TEMPORA_NAMES_32, "%32", "%33", "%34")
TEMPORA_PRODUCT("128", 16, TEMPORA_NAMES_64, "%64", "%65", "%66")
TEMPORA_PRODUCT("256", 32, TEMPORA_NAMES_128, "%128", "%129", "%130")

#undef TEMPORA_PRODUCT
#undef TEMPORA_NAMES_4
#undef TEMPORA_NAMES_8
#undef TEMPORA_NAMES_16
#undef TEMPORA_NAMES_32
#undef TEMPORA_NAMES_64
#undef TEMPORA_NAMES_128
#undef TEMPORA_SUMS_1
#undef TEMPORA_SUMS_2
#undef TEMPORA_SUMS_4
#undef TEMPORA_SUMS_8
#undef TEMPORA_SUMS_16
#undef TEMPORA_SUMS_32

}  // namespace tempora::device
