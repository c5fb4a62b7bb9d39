#include "attention_tiles.h"

#include "attention_backward.cuh"
#include "attention_forward.cuh"

namespace tempora {
namespace {

using namespace device;

const std::int32_t* ints(const Buffer& buffer) { return static_cast<const std::int32_t*>(buffer.data()); }

PairsView view_of(const DevicePairs& pairs) { return {ints(pairs.start), ints(pairs.pair), ints(pairs.order)}; }

TilesView view_of(const DeviceTiles& tiles) {
  return {static_cast<const VisibleRange*>(tiles.range.data()), ints(tiles.position),
          static_cast<const PositionRange*>(tiles.tile_position.data())};
}

bf16* numbers(const Matrix& matrix) { return static_cast<bf16*>(matrix.data); }

// Calls work.operator()<C>() with the head's dimension C.
template <typename Work>
void with_head(int head_dim, Work work) {
  switch (head_dim) {
    case 64:
      return work.template operator()<64>();
    case 96:
      return work.template operator()<96>();
    default:
      return work.template operator()<128>();
  }
}

}  // namespace

bool tiles_know(const AttentionShape& shape, DType dtype) {
  return dtype == DType::bf16 && (shape.head_dim == 64 || shape.head_dim == 96 || shape.head_dim == 128);
}

void attend_by_tiles(cudaStream_t stream, const DeviceTiles& tiles, const AttentionShape& shape, const Matrix& q,
                     const Matrix& k, const Matrix& v, const Matrix& out, float* lse) {
  const AttentionNumbers n = numbers_of(shape, q.rows);
  with_head(shape.head_dim, [&]<int C>() {
    const LaunchShape launch_shape{dim3(tiles.wide.tiles, static_cast<unsigned>(shape.heads)), kTileThreads,
                                   ForwardTiles<C>::kSharedBytes};
    launch("tree_attention, tiles", forward_tiles_kernel<C>, launch_shape, stream, view_of(tiles), view_of(tiles.wide),
           n, numbers(q), numbers(k), numbers(v), numbers(out), lse);
  });
}

void attend_by_tiles_backward(cudaStream_t stream, const DeviceTiles& tiles, const AttentionShape& shape,
                              const Matrix& q, const Matrix& k, const Matrix& v, const Matrix& out, const float* lse,
                              const TileGradients& to) {
  const AttentionNumbers n = numbers_of(shape, q.rows);
  const std::int64_t items = q.rows * shape.heads;
  with_head(shape.head_dim, [&]<int C>() {
    constexpr std::size_t shared = kBackwardSharedBytes<C>;
    static_assert(shared <= kBlockShared);
    launch("tree_attention_backward, delta", delta_kernel<C>, blocks_for(items, kBlock / kWarp), kBlock, stream, items,
           numbers(out), numbers(to.d_out), to.delta);
    const dim3 queries(tiles.queries.tiles, static_cast<unsigned>(shape.heads));
    launch("tree_attention_backward, queries by tiles", query_gradient_kernel<C>,
           LaunchShape{queries, kTileThreads, shared}, stream, view_of(tiles), view_of(tiles.queries), n, numbers(q),
           numbers(k), numbers(v), lse, numbers(to.d_out), to.delta, numbers(to.d_q));
    const dim3 keys(tiles.keys.tiles, static_cast<unsigned>(shape.kv_heads));
    launch("tree_attention_backward, keys by tiles", key_gradient_kernel<C>, LaunchShape{keys, kTileThreads, shared},
           stream, view_of(tiles), view_of(tiles.keys), n, numbers(q), numbers(k), numbers(v), lse, numbers(to.d_out),
           to.delta, numbers(to.d_k), numbers(to.d_v));
  });
}

}  // namespace tempora
