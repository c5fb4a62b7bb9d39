// Biases, norms of heads, rotation and the way into the cache, in one launch: a decoding step's few rows cost launches.
#include <algorithm>
#include <utility>

#include "cache_layout.cuh"
#include "check.h"
#include "cuda_backend.h"
#include "rope.cuh"
#include "rows_of_lanes.cuh"
#include "split_sums.cuh"

namespace tempora {
namespace {

using namespace device;

constexpr int kMostThreads = 512;

struct InputSums {
  SplitSums q, k, v;
};

template <typename T>
struct HeadsView {
  T *product, *out;
  const T *bias, *norm;
  float* rstd;
  SplitView sums;  // of the product, where it is not in its place

  HeadsView(const HeadRows& rows, const SplitSums& of_product)
      : product(static_cast<T*>(rows.product().data)),
        out(static_cast<T*>(rows.out.data)),
        bias(static_cast<const T*>(rows.bias)),
        norm(static_cast<const T*>(rows.norm)),
        rstd(rows.rstd),
        sums(of_product) {}
};

template <typename T>
struct InputsView {
  HeadsView<T> q, k, v;
  int heads, kv_heads;
  float norm_eps;
  const std::int32_t* positions;
  const float* frequencies;
  const std::int32_t* slots;
  T *keys, *values;

  InputsView(const AttentionInputs& inputs, const InputSums& sums)
      : q(inputs.q, sums.q),
        k(inputs.k, sums.k),
        v(inputs.v, sums.v),
        heads(inputs.shape.heads),
        kv_heads(inputs.shape.kv_heads),
        norm_eps(inputs.norm_eps),
        positions(inputs.positions),
        frequencies(inputs.frequencies),
        slots(inputs.cache.slots),
        keys(static_cast<T*>(inputs.cache.keys)),
        values(static_cast<T*>(inputs.cache.values)) {}
};

// A head in the registers of its lanes: as add_bias, head_norm and rope compute it, rounded where they store it.
template <typename T, int lanes>
struct Head : RowOfLanes<lanes, 1, kVector<T>> {
  static constexpr int n = kVector<T>, kDim = lanes * n;
  using Row = RowOfLanes<lanes, 1, n>;
  using Row::at, Row::lane, Row::column;

  __device__ void load_product(const HeadsView<T>& view, std::int64_t head, bool there) {
    if (view.sums.parts == nullptr) return this->load(view.product + head, there ? kDim : 0);
#pragma unroll
    for (float& number : at[0]) number = 0;
    if (!there) return;
    view.sums.sum(head + column(0), at[0]);
    round_vector<T>(at[0]);
  }

  __device__ void add_bias(const T* bias) {
    float biases[n];
    load_vector(bias + column(0), biases);
#pragma unroll
    for (int i = 0; i < n; ++i) at[0][i] += biases[i];
    round_vector<T>(at[0]);
  }

  // All lanes of a warp come here; `turns` is false for those whose head stays as it is.
  __device__ void rotate(const Turns& turns, bool rotates) {
    float sines[n], cosines[n];
    const bool low = lane() < lanes / 2;
    const int dimension = column(0) % (kDim / 2);
    load_vector(turns.sine + dimension, sines);
    load_vector(turns.cosine + dimension, cosines);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float own = at[0][i], other = __shfl_xor_sync(0xffffffffu, own, lanes / 2);
      const float turned =
          low ? turned_low(own, other, sines[i], cosines[i]) : turned_high(other, own, sines[i], cosines[i]);
      if (rotates) at[0][i] = turned;
    }
  }
};

// One block a token; its heads are taken as many at a time as there are threads.
template <typename T, int lanes, bool norms>
__global__ void __launch_bounds__(kMostThreads) attention_inputs_kernel(InputsView<T> in) {
  using Row = Head<T, lanes>;
  __shared__ Turns turns;
  const std::int64_t token = blockIdx.x;
  turns.fill(in.positions[token], in.frequencies, Row::kDim / 2, 1.0f);
  __syncthreads();
  const bool to_cache = in.slots != nullptr;
  const bool with_v = to_cache || in.v.bias != nullptr || in.v.sums.parts != nullptr;
  const int all = in.heads + in.kv_heads * (with_v ? 2 : 1);
  const int at_a_time = static_cast<int>(blockDim.x) / lanes;
  for (int first = 0; first < all; first += at_a_time) {
    const int place = first + static_cast<int>(threadIdx.x) / lanes;
    const bool there = place < all, is_q = place < in.heads, is_v = place >= in.heads + in.kv_heads;
    const HeadsView<T>& view = is_q ? in.q : is_v ? in.v : in.k;
    const int head = is_q ? place : (place - in.heads) % in.kv_heads, heads = is_q ? in.heads : in.kv_heads;
    const std::int64_t at = (token * heads + head) * Row::kDim;
    Row numbers;
    numbers.load_product(view, at, there);
    if (there && view.bias != nullptr) {
      numbers.add_bias(view.bias + head * Row::kDim);
      if (view.product != view.out) numbers.store(view.product + at, Row::kDim);
    }
    if constexpr (norms) {
      const float rstd = numbers.rstd(Row::kDim, in.norm_eps);
      if (there && !is_v) {
        numbers.normalise(rstd, view.norm, Row::kDim);
        round_vector<T>(numbers.at[0]);
        if (Row::lane() == 0) view.rstd[token * heads + head] = rstd;
      }
    }
    numbers.rotate(turns, !is_v);
    if (!there) continue;
    numbers.store(view.out + at, Row::kDim);
    if (is_q || !to_cache) continue;
    T* cache = is_v ? in.values : in.keys;
    numbers.store(cache + cache_offset(in.slots[token], head, in.kv_heads, Row::kDim), Row::kDim);
  }
}

// Vectors of a head that a power of two of lanes has whole; 0 where it does not.
template <typename T>
int lanes_of(const AttentionInputs& inputs) {
  constexpr int n = kVector<T>;
  const int head_dim = inputs.shape.head_dim;
  const int lanes = head_dim % n == 0 ? lanes_for(head_dim / n) : 0;
  if (lanes * n != head_dim || lanes < 2) return 0;
  for (const void* data : {inputs.cache.keys, inputs.cache.values}) {
    if (!fits_vectors<n>(static_cast<const T*>(data), head_dim)) return 0;
  }
  for (const HeadRows* rows : {&inputs.q, &inputs.k, &inputs.v}) {
    for (const void* data : {static_cast<const void*>(rows->product().data), static_cast<const void*>(rows->out.data),
                             rows->bias, rows->norm}) {
      if (!fits_vectors<n>(static_cast<const T*>(data), head_dim)) return 0;
    }
  }
  return lanes;
}

template <typename T>
void launch_inputs(const AttentionInputs& inputs, const InputSums& sums, int lanes, cudaStream_t stream) {
  const int work = (inputs.shape.heads + 2 * inputs.shape.kv_heads) * lanes;
  const int passes = (work + kMostThreads - 1) / kMostThreads;
  const int threads = ((work + passes - 1) / passes + kWarp - 1) / kWarp * kWarp;
  with_lanes(lanes, [&]<int found>() {
    if constexpr (found > 1) {
      const auto kernel =
          inputs.q.norm == nullptr ? attention_inputs_kernel<T, found, false> : attention_inputs_kernel<T, found, true>;
      launch("attention_inputs", kernel, static_cast<unsigned>(inputs.q.out.rows), threads, stream,
             InputsView<T>(inputs, sums));
    }
  });
}

}  // namespace

void CudaBackend::attention_inputs(const AttentionInputs& inputs) {
  require_dense("attention_inputs", {inputs.q.out, inputs.k.out, inputs.v.out});
  if (inputs.q.out.rows == 0) return;
  with_type(inputs.q.out.dtype, [&]<typename T>() {
    const int lanes = lanes_of<T>(inputs);
    if (lanes == 0) return Backend::attention_inputs(inputs);
    launch_inputs<T>(inputs, {}, lanes, stream_);
  });
}

void CudaBackend::row_attention_inputs(const Matrix& x, const std::vector<const Weight*>& weights,
                                       const AttentionInputs& inputs) {
  require_dense("row_attention_inputs", {inputs.q.out, inputs.k.out, inputs.v.out});
  if (inputs.q.out.rows == 0) return;
  with_type(inputs.q.out.dtype, [&]<typename T>() {
    const int lanes = lanes_of<T>(inputs);
    if (lanes == 0) return Backend::row_attention_inputs(x, weights, inputs);
    std::vector<SplitSums> sums = begin_row_products(x, {{*weights.at(0), inputs.q.product()},
                                                         {*weights.at(1), inputs.k.product()},
                                                         {*weights.at(2), inputs.v.product()}});
    launch_inputs<T>(inputs, {std::move(sums[0]), std::move(sums[1]), std::move(sums[2])}, lanes, stream_);
  });
}

}  // namespace tempora
