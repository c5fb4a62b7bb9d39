// All PTX of the backend: products of a warp on tensor cores, the loads that feed them, and copies to shared memory
// that go on beside arithmetic. The tests' emulated device has a header of the same name in this one's place.
//
// Fragments are those of mma.sync m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"). With g = lane / 4 and
// c = 2 · (lane % 4), two bf16 in a word, the lower column (of B: row) in its low half:
//   A 16 x 16   {row g, columns c, c+1}  {g+8; c, c+1}  {g; c+8, c+9}  {g+8; c+8, c+9}
//   B 16 x 8    {rows c, c+1, column g}  {c+8, c+9; g}
//   C 16 x 8    (g, c)  (g, c+1)  (g+8, c)  (g+8, c+1), f32
#pragma once

#include <cstdint>

namespace tempora::device {

// c += a · b.
__device__ inline void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16 bits. Lane l gives the address, in shared memory and a multiple of 16, of row l % 8 of
// matrix l / 8, and gets of each matrix row l / 4, columns 2 · (l % 4) and the next.
__device__ inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// The same of the transposed matrices: rows 2 · (l % 4) and the next, column l / 4.
__device__ inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// Begins to copy 16 bytes of global to shared memory, both aligned to them; zeros where nothing is `there`, which
// `from` may then not point to. Done for the thread that began it when it has waited for its group.
__device__ inline void copy_async(void* to, const void* from, bool there) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}

// Ends a group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits for this thread's copies but those of the last `pending` groups.
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
}

// Two numbers rounded to bf16, `low` in the low half.
__device__ inline std::uint32_t pack(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// A pointer into global memory that was itself read from memory: the compiler does not know where it leads, and asks at
// every access.
template <typename T>
__device__ inline T* in_global(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// 16 bytes of global memory in one store, aligned to them: a compiler may take the copy of a struct apart.
__device__ inline void store_words(void* to, const std::uint32_t (&words)[4]) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(to)), "r"(words[0]),
               "r"(words[1]), "r"(words[2]), "r"(words[3])
               : "memory");
}

// 2^x; 0 for -infinity.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(power) : "f"(x));
  return power;
}

// The shared memory that the launch asked for, aligned to 16 bytes.
__device__ inline char* launched_shared() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

}  // namespace tempora::device
