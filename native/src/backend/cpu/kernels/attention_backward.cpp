// With P = softmax(S), S = q·k / sqrt(C), dP = d_out·v and delta = d_out·out (a number per row):
//   dS = P (dP - delta),  d_q = dS k / sqrt(C),  d_k = dSᵀ q / sqrt(C),  d_v = Pᵀ d_out.
#include "attention.h"
#include "attention_tiles.h"

namespace tempora::TEMPORA_ISA {
namespace {

// A thread's scratch.
struct Scratch {
  // Panels [padded, kTileLanes] per tile; queries are scaled by query_scale.
  float *queries, *d_outputs, *d_queries;
  // [kTileLanes, padded] per tile, not scaled.
  float *query_rows, *d_output_rows;
  // [kTileLanes] per tile; lse in base 2.
  float *lse, *delta, *views;
  // [kKeyBlock, padded].
  float *keys, *values, *d_keys, *d_values;
  // [kKeyBlock, kTileLanes]: S, then P; dP, then dS.
  float *weights, *d_scores;

  std::int64_t place(const TileShape& shape, float* base) {
    ScratchCursor cursor(base);
    const std::int64_t panel = shape.tile_size();
    queries = cursor.take(shape.tiles * panel);
    d_outputs = cursor.take(shape.tiles * panel);
    d_queries = cursor.take(shape.tiles * panel);
    query_rows = cursor.take(shape.tiles * panel);
    d_output_rows = cursor.take(shape.tiles * panel);
    lse = cursor.take(shape.tiles * kTileLanes);
    delta = cursor.take(shape.tiles * kTileLanes);
    views = cursor.take(shape.tiles * kViewFloats);
    keys = cursor.take(kKeyBlock * shape.padded);
    values = cursor.take(kKeyBlock * shape.padded);
    d_keys = cursor.take(kKeyBlock * shape.padded);
    d_values = cursor.take(kKeyBlock * shape.padded);
    weights = cursor.take(kKeyBlock * kTileLanes);
    d_scores = cursor.take(kKeyBlock * kTileLanes);
    return cursor.used();
  }

  TileLanesView& view(int tile) const { return *reinterpret_cast<TileLanesView*>(views + tile * kViewFloats); }
};

std::int64_t scratch_floats(int group, int head_dim) {
  return Scratch{}.place(TileShape(group, head_dim, kQueryBlock), nullptr);
}

// P and dS of a strip, in place of S and dP.
template <typename T>
void score_gradients(const TileLanesView& view, const Strip& strip, std::int32_t window, std::int32_t position,
                     float scale, const float* lse, const float* delta, float* weights, float* d_scores) {
  for (int v = strip.vector; v < strip.vector + strip.vectors; ++v) {
    const VecF row_lse = load(lse + v * kWidth), row_delta = load(delta + v * kWidth);
    for (std::int32_t key = strip.key; key < strip.key + strip.keys; ++key) {
      const std::int64_t at = key * kTileLanes + v * kWidth;
      VecF score = load(weights + at);
      if (kScalesScores<T>) score *= scale;
      VecF weight = exp2(score - row_lse);
      if (strip.masked) weight = visible(view, v, window, position + key) ? weight : VecF{};
      store(weights + at, weight);
      store(d_scores + at, weight * (load(d_scores + at) - row_delta));
    }
  }
}

// One tile against one key block: adds to d_queries, d_keys and d_values.
template <typename T>
void propagate(const Scratch& s, const TileShape& shape, int tile, std::int32_t window, std::int32_t position,
               std::int32_t keys) {
  const TileLanesView& view = s.view(tile);
  const std::int64_t panel = tile * shape.tile_size();  // also where the tile's rows begin
  const int vectors_of_head = static_cast<int>(shape.padded / kWidth);
  Strip strips[kKeyBlock];
  const int count = find_strips(view, window, position, keys, strips);
  for (int i = 0; i < count; ++i) {
    const Strip& strip = strips[i];
    const std::int64_t lane = strip.vector * kWidth, lanes = strip.vectors * kWidth;
    const std::int64_t row = strip.key * shape.padded, score = strip.key * kTileLanes + lane;
    multiply_as<T>({s.keys + row, shape.padded, 1, s.queries + panel + lane, kTileLanes, s.weights + score, kTileLanes,
                    strip.keys, strip.vectors, shape.head_dim, false});
    multiply_as<T>({s.values + row, shape.padded, 1, s.d_outputs + panel + lane, kTileLanes, s.d_scores + score,
                    kTileLanes, strip.keys, strip.vectors, shape.head_dim, false});
    score_gradients<T>(view, strip, window, position, score_scale<T>(shape.head_dim), s.lse + tile * kTileLanes,
                       s.delta + tile * kTileLanes, s.weights, s.d_scores);
    multiply_as<T>({s.weights + score, kTileLanes, 1, s.d_output_rows + panel + lane * shape.padded, shape.padded,
                    s.d_values + row, shape.padded, strip.keys, vectors_of_head, lanes, true});
    multiply_as<T>({s.d_scores + score, kTileLanes, 1, s.query_rows + panel + lane * shape.padded, shape.padded,
                    s.d_keys + row, shape.padded, strip.keys, vectors_of_head, lanes, true});
    multiply_as<T>({s.keys + row, 1, shape.padded, s.d_scores + score, kTileLanes, s.d_queries + panel + lane,
                    kTileLanes, shape.head_dim, strip.vectors, strip.keys, true});
  }
}

// total [tokens, head_dim] += rows [keys, padded] of the cursor's next keys.
void scatter_keys(KeyCursor cursor, std::int32_t keys, const float* rows, const TileShape& shape, float* total) {
  for (std::int32_t done = 0; done < keys;) {
    const KeySegment run = cursor.take(keys - done);
    for (std::int32_t i = 0; i < run.count; ++i, ++done) {
      const float* from = rows + done * shape.padded;
      float* to = total + static_cast<std::int64_t>(run.local + i) * shape.head_dim;
      for_vectors(shape.head_dim, [=](auto load, auto store) { store(to, load(to) + load(from)); });
    }
  }
}

template <typename T>
void propagate_stream(const TreeAttentionCall& call, const QueryBlock& block, const KeyStream& stream, int kv_head,
                      const TileShape& shape, const Scratch& s, float* d_k, float* d_v) {
  const int first_tile = stream.row_begin * shape.group / kTileLanes;
  const int last_tile = (stream.row_end * shape.group - 1) / kTileLanes;
  for (int tile = first_tile; tile <= last_tile; ++tile) view_stream(call, block, shape, stream, tile, s.view(tile));
  const std::int64_t stride = static_cast<std::int64_t>(call.kv_heads) * call.head_dim;
  const T* k = static_cast<const T*>(call.k) + static_cast<std::int64_t>(kv_head) * call.head_dim;
  const T* v = static_cast<const T*>(call.v) + static_cast<std::int64_t>(kv_head) * call.head_dim;
  for (std::int32_t key = hidden_keys(call, block, stream); key < stream.count; key += kKeyBlock) {
    const std::int32_t keys = smaller(kKeyBlock, stream.count - key);
    const KeyCursor cursor(call, stream, key);
    gather_keys(cursor, keys, k, stride, shape, s.keys);
    gather_keys(cursor, keys, v, stride, shape, s.values);
    clear(s.d_keys, keys * shape.padded);
    clear(s.d_values, keys * shape.padded);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
      propagate<T>(s, shape, tile, call.window, stream.position + key, keys);
    }
    scatter_keys(cursor, keys, s.d_keys, shape, d_k);
    scatter_keys(cursor, keys, s.d_values, shape, d_v);
  }
}

// lse in base 2 and delta of a tile's lanes, 0 past the block's end; d_output_rows are there already.
template <typename T>
void load_statistics(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, const TileShape& shape,
                     const TileRows<const T>& outputs, int tile, const Scratch& s) {
  float *lse = s.lse + tile * kTileLanes, *delta = s.delta + tile * kTileLanes;
  clear(lse, kTileLanes);
  clear(delta, kTileLanes);
  const std::int64_t first_head = static_cast<std::int64_t>(block.token) * call.heads + kv_head * shape.group;
  for_rows(outputs, shape, tile, [&](std::int32_t lane, const T* output) {
    const std::int32_t row = tile * kTileLanes + lane;
    lse[lane] =
        kLog2E * call.lse[first_head + static_cast<std::int64_t>(row / shape.group) * call.heads + row % shape.group];
    const float* gradient = s.d_output_rows + tile * shape.tile_size() + lane * shape.padded;
    VecF products = {};
    for_vectors(shape.head_dim, [&](auto load, auto) { products += load(output) * load(gradient); });
    delta[lane] = sum(products);
  });
}

template <typename T>
void backward(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, float* d_k, float* d_v,
              float* scratch) {
  const TileShape shape(call.heads / call.kv_heads, call.head_dim, block.count);
  Scratch s;
  s.place(shape, scratch);
  const std::int64_t panel = shape.tile_size();
  const std::int64_t stride = static_cast<std::int64_t>(call.heads) * call.head_dim;
  const std::int64_t first = block.token * stride + static_cast<std::int64_t>(kv_head) * shape.group * call.head_dim;
  const TileRows<const T> queries{static_cast<const T*>(call.q) + first, stride};
  const TileRows<const T> outputs{static_cast<const T*>(call.out) + first, stride};
  const TileRows<const T> d_outputs{static_cast<const T*>(call.d_out) + first, stride};
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(call.head_dim));
  for (int tile = 0; tile < shape.tiles; ++tile) {
    load_rows(queries, shape, tile, s.query_rows + tile * panel);
    load_rows(d_outputs, shape, tile, s.d_output_rows + tile * panel);
    load_panel(s.query_rows + tile * panel, shape, query_scale<T>(call.head_dim), s.queries + tile * panel);
    load_panel(s.d_output_rows + tile * panel, shape, 1.0f, s.d_outputs + tile * panel);
    load_statistics(call, block, kv_head, shape, outputs, tile, s);
  }
  clear(s.d_queries, shape.tiles * panel);
  for (int i = 0; i < block.streams; ++i) {
    propagate_stream<T>(call, block, call.streams[block.first_stream + i], kv_head, shape, s, d_k, d_v);
  }
  const TileRows<T> d_queries{static_cast<T*>(call.d_q) + first, stride};
  float scales[kTileLanes];
  for (float& lane : scales) lane = scale;
  for (int tile = 0; tile < shape.tiles; ++tile) {
    // The queries' rows are not needed any more.
    store_panel(s.d_queries + tile * panel, shape, tile, scales, d_queries, s.query_rows);
  }
}

template <typename T>
void add_up(const float* parts, std::int64_t stride, std::int32_t count, float scale, void* to, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) {
    VecF total = load(parts);
    for (std::int32_t i = 1; i < count; ++i) total += load(parts + i * stride);
    store(static_cast<T*>(to), total * scale);
  });
}

}  // namespace

const AttentionBackwardKernels attention_backward_kernels = {
    scratch_floats, {backward<float>, backward<Bf16>}, {add_up<float>, add_up<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
