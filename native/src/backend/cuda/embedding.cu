#include <algorithm>

#include "check.h"
#include "cuda_backend.h"
#include "vectors.cuh"

namespace tempora {
namespace {

using namespace device;

// One block a token.
template <typename T, int n>
__global__ void embed_kernel(const std::int32_t* tokens, const T* table, float* out, int width) {
  const std::int64_t t = blockIdx.x;
  const T* row = table + static_cast<std::int64_t>(tokens[t]) * width;
  for (int i = threadIdx.x * n; i < width; i += kBlock * n) {
    float numbers[n];
    load_vector(row + i, numbers);
    store_vector(out + t * width + i, numbers);
  }
}

// Where each token of the vocabulary occurs: `places[start[token]]` and the count[token] - 1 after it. Which token's
// places lie first is left to chance; each token's own are sorted.
struct Occurrences {
  std::int32_t* count;     // [V], 0 at first
  std::int32_t* ends;      // [2], 0 at first: places given away, distinct tokens found
  std::int32_t* start;     // [V]
  std::int32_t* slot;      // [T]: which of its token's places a row gets before they are sorted
  std::int32_t* distinct;  // [T]
  std::int32_t* places;    // [T]

  static std::size_t bytes_of_zeros(std::int64_t vocab) { return static_cast<std::size_t>(vocab + 2) * 4; }
  static std::size_t bytes(std::int64_t vocab, std::int64_t tokens) {
    return bytes_of_zeros(vocab) + static_cast<std::size_t>(vocab + 3 * tokens) * 4;
  }
  Occurrences(void* memory, std::int64_t vocab, std::int64_t tokens)
      : count(static_cast<std::int32_t*>(memory)),
        ends(count + vocab),
        start(ends + 2),
        slot(start + vocab),
        distinct(slot + tokens),
        places(distinct + tokens) {}
};

__global__ void count_tokens_kernel(const std::int32_t* tokens, int rows, Occurrences found) {
  const int t = static_cast<int>(blockIdx.x) * kBlock + threadIdx.x;
  if (t < rows) found.slot[t] = atomicAdd(found.count + tokens[t], 1);
}

__global__ void give_places_kernel(const std::int32_t* tokens, int rows, Occurrences found) {
  const int t = static_cast<int>(blockIdx.x) * kBlock + threadIdx.x;
  if (t >= rows || found.slot[t] != 0) return;
  found.start[tokens[t]] = atomicAdd(found.ends, found.count[tokens[t]]);
  found.distinct[atomicAdd(found.ends + 1, 1)] = tokens[t];
}

__global__ void take_places_kernel(const std::int32_t* tokens, int rows, Occurrences found) {
  const int t = static_cast<int>(blockIdx.x) * kBlock + threadIdx.x;
  if (t < rows) found.places[found.start[tokens[t]] + found.slot[t]] = t;
}

// Puts the lesser of two places first; behind the end lie places larger than all.
__device__ void order_places(std::int32_t* places, int count, int a, int b) {
  if (b >= count || places[a] <= places[b]) return;
  const std::int32_t larger = places[a];
  places[a] = places[b];
  places[b] = larger;
}

// One block a distinct token: merges sorted runs of 1, 2, 4, ..., the second of each two backwards, by a bitonic
// network.
__global__ void sort_places_kernel(Occurrences found) {
  if (static_cast<int>(blockIdx.x) >= found.ends[1]) return;
  const std::int32_t token = found.distinct[blockIdx.x];
  std::int32_t* places = found.places + found.start[token];
  const int count = found.count[token];
  for (int size = 2; size / 2 < count; size *= 2) {
    const int half = size / 2, pairs = (count + size - 1) / size * half;
    for (int pair = threadIdx.x; pair < pairs; pair += kBlock) {
      const int first = pair / half * size, i = pair % half;
      order_places(places, count, first + i, first + size - 1 - i);
    }
    __syncthreads();
    for (int step = half / 2; step > 0; step /= 2) {
      for (int pair = threadIdx.x; pair < pairs; pair += kBlock) {
        const int a = pair / step * 2 * step + pair % step;
        order_places(places, count, a, a + step);
      }
      __syncthreads();
    }
  }
}

// One block a distinct token and kBlock · n columns: adds the token's rows in their order.
template <int n>
__global__ void add_occurrences_kernel(Occurrences found, const float* d_out, float* d_table, int width) {
  if (static_cast<int>(blockIdx.x) >= found.ends[1]) return;
  const int column = static_cast<int>(blockIdx.y * kBlock + threadIdx.x) * n;
  if (column >= width) return;
  const std::int32_t token = found.distinct[blockIdx.x];
  const std::int32_t* places = found.places + found.start[token];
  const int count = found.count[token];
  float* to = d_table + static_cast<std::int64_t>(token) * width + column;
  float sums[n];
  load_vector(to, sums);
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    float numbers[n];
    load_vector(d_out + static_cast<std::int64_t>(places[i]) * width + column, numbers);
#pragma unroll
    for (int j = 0; j < n; ++j) sums[j] += numbers[j];
  }
  store_vector(to, sums);
}

}  // namespace

void CudaBackend::embed(const std::int32_t* tokens, const Weight& weight, const Matrix& out) {
  require_dense("embed", {out});
  const Matrix table = weight.values();
  if (out.rows == 0) return;
  with_type(table.dtype, [&]<typename T>() {
    const T* from = static_cast<const T*>(table.data);
    const auto embed = [&]<int n>() {
      launch("embed", embed_kernel<T, n>, static_cast<unsigned>(out.rows), kBlock, stream_, tokens, from, out.f32(),
             static_cast<int>(out.cols));
    };
    constexpr int n = kVector<float>;
    if (fits_vectors<n>(from, out.cols) && fits_vectors<n>(out.f32(), out.cols)) return embed.template operator()<n>();
    embed.template operator()<1>();
  });
}

void CudaBackend::embed_backward(const std::int32_t* tokens, const Matrix& d_out, const Matrix& d_table) {
  require_dense("embed_backward", {d_out, d_table});
  if (d_out.rows == 0) return;
  const Buffer memory = allocate(Occurrences::bytes(d_table.rows, d_out.rows), MemoryUse::workspace);
  const Occurrences found(memory.data(), d_table.rows, d_out.rows);
  zero(memory.data(), Occurrences::bytes_of_zeros(d_table.rows));
  const int rows = static_cast<int>(d_out.rows), width = static_cast<int>(d_out.cols);
  const unsigned blocks = blocks_for(rows, kBlock);
  launch("count_tokens", count_tokens_kernel, blocks, kBlock, stream_, tokens, rows, found);
  launch("give_places", give_places_kernel, blocks, kBlock, stream_, tokens, rows, found);
  launch("take_places", take_places_kernel, blocks, kBlock, stream_, tokens, rows, found);
  const auto distinct = static_cast<unsigned>(std::min(d_out.rows, d_table.rows));
  launch("sort_places", sort_places_kernel, distinct, kBlock, stream_, found);
  const auto add = [&]<int n>() {
    launch("embed_backward", add_occurrences_kernel<n>, dim3(distinct, blocks_for(width, kBlock * n)), kBlock, stream_,
           found, d_out.f32(), d_table.f32(), width);
  };
  constexpr int n = kVector<float>;
  if (fits_vectors<n>(d_out.f32(), width) && fits_vectors<n>(d_table.f32(), width)) return add.template operator()<n>();
  add.template operator()<1>();
}

}  // namespace tempora
