// With P = softmax(S), S = q·k / sqrt(C), dP = d_out·v and delta = d_out·out (a number per row):
//   dS = P (dP - delta),  d_q = dS k / sqrt(C),  d_k = dSᵀ q / sqrt(C),  d_v = Pᵀ d_out.
#include "ahead.h"
#include "attention.h"
#include "attention_tiles.h"

namespace tempora::TEMPORA_ISA {
namespace {

// A thread's scratch. Sizes are in words of one number: what is in pairs takes half of its place.
struct Scratch {
  float* rows;  // of one tile, [kTileLanes, padded]
  // Panels [padded, kTileLanes] per tile; queries are scaled by query_scale.
  float *queries, *d_outputs, *d_queries;
  // [kTileLanes, padded] per tile in words along lanes, not scaled.
  float *query_rows, *d_output_rows;
  // [kTileLanes] per tile; lse in base 2.
  float *lse, *delta, *views;
  // [kKeyBlock, padded]; key_pairs are the keys in words along keys.
  float *keys, *key_pairs, *values, *d_keys, *d_values;
  // [kKeyBlock, kTileLanes]: S, then P in words along lanes; dP, then dS in words along lanes; dS in words along keys.
  float *weights, *d_scores, *d_score_pairs;

  std::int64_t place(const TileShape& shape, float* base) {
    ScratchCursor cursor(base);
    const std::int64_t panel = shape.tile_size();
    rows = cursor.take(panel);
    queries = cursor.take(shape.tiles * panel);
    d_outputs = cursor.take(shape.tiles * panel);
    d_queries = cursor.take(shape.tiles * panel);
    query_rows = cursor.take(shape.tiles * panel);
    d_output_rows = cursor.take(shape.tiles * panel);
    lse = cursor.take(shape.tiles * kTileLanes);
    delta = cursor.take(shape.tiles * kTileLanes);
    views = cursor.take(shape.tiles * kViewFloats);
    keys = cursor.take(kKeyBlock * shape.padded);
    key_pairs = cursor.take(kKeyBlock * shape.padded);
    values = cursor.take(kKeyBlock * shape.padded);
    d_keys = cursor.take(kKeyBlock * shape.padded);
    d_values = cursor.take(kKeyBlock * shape.padded);
    weights = cursor.take(kKeyBlock * kTileLanes);
    d_scores = cursor.take(kKeyBlock * kTileLanes);
    d_score_pairs = cursor.take(kKeyBlock * kTileLanes);
    return cursor.used();
  }

  TileLanesView& view(int tile) const { return *reinterpret_cast<TileLanesView*>(views + tile * kViewFloats); }
};

std::int64_t scratch_floats(int group, int head_dim) {
  return Scratch{}.place(TileShape(group, head_dim, kQueryBlock), nullptr);
}

// The rows of some tokens that belong to one key/value head's queries, in a matrix of type T.
template <typename T>
ByteRows rows_of(const TreeAttentionCall& call, const void* matrix, std::int32_t token, std::int32_t count,
                 int kv_head) {
  const std::int64_t row = static_cast<std::int64_t>(call.heads) * call.head_dim;
  const std::int64_t own = row / call.kv_heads;
  constexpr std::int64_t kSize = sizeof(T);
  return {static_cast<const T*>(matrix) + token * row + kv_head * own, count, row * kSize, own * kSize};
}

// Products of a block's tiles and keys, about.
std::int64_t products_of(const TreeAttentionCall& call, const QueryBlock& block, const TileShape& shape) {
  constexpr std::int64_t kProducts = 5;
  std::int64_t count = 0;
  for (std::int32_t i = 0; i < block.streams; ++i) {
    const KeyStream& stream = call.streams[block.first_stream + i];
    const std::int32_t first_tile = stream.row_begin * shape.group / kTileLanes;
    const std::int32_t last_tile = (stream.row_end * shape.group - 1) / kTileLanes;
    const std::int32_t keys = larger(0, stream.count - hidden_keys(call, block, stream));
    count += (keys + kKeyBlock - 1) / kKeyBlock * (last_tile - first_tile + 1);
  }
  return count > 0 ? count * kProducts : 1;
}

// What is brought beside a block's products: the rows that it writes, and those that the next one reads.
struct Meanwhile {
  Ahead d_queries, queries, outputs, d_outputs;

  void some() {
    d_queries.some();
    queries.some();
    outputs.some();
    d_outputs.some();
  }
};

// P and dS of a strip, in place of S and dP; in pairs, vector v of a row takes the 8 words from 8 · v on, and dS is
// written in words along keys as well.
template <typename T>
void score_gradients(const Scratch& s, const TileLanesView& view, const Strip& strip, int tile, std::int32_t window,
                     std::int32_t position, float scale) {
  const std::int32_t end = strip.key + strip.keys;
  for (int v = strip.vector; v < strip.vector + strip.vectors; ++v) {
    const VecF row_lse = load(s.lse + tile * kTileLanes + v * kWidth);
    const VecF row_delta = load(s.delta + tile * kTileLanes + v * kWidth);
    const auto gradients = [&](std::int32_t key, VecF& weight, VecF& d_score) {
      const std::int64_t at = key * kTileLanes + v * kWidth;
      VecF score = load(s.weights + at);
      if (kScalesScores<T>) score *= scale;
      weight = exp2(score - row_lse);
      if (strip.masked) weight = visible(view, v, window, position + key) ? weight : VecF{};
      d_score = weight * (load(s.d_scores + at) - row_delta);
    };
    for (std::int32_t key = strip.key; key < end; key += kPerWord<T>) {
      const std::int64_t row = key * kTileLanes;
      VecF weight, d_score;
      gradients(key, weight, d_score);
      if constexpr (kPerWord<T> == 1) {
        store(s.weights + row + v * kWidth, weight);
        store(s.d_scores + row + v * kWidth, d_score);
      } else {
        const std::int64_t words = row + v * kWidth / 2, next_words = words + kTileLanes;
        VecF next_d_score = {};
        if (key + 1 < end) {
          VecF next_weight;
          gradients(key + 1, next_weight, next_d_score);
          store_halves(s.weights + next_words, next_weight);
          store_halves(s.d_scores + next_words, next_d_score);
        }
        store_halves(s.weights + words, weight);
        store_halves(s.d_scores + words, d_score);
        store(s.d_score_pairs + row / 2 + v * kWidth, paired(d_score, next_d_score));
      }
    }
  }
}

// One tile against one key block: adds to d_queries, d_keys and d_values.
template <typename T>
void propagate(const Scratch& s, const TileShape& shape, int tile, std::int32_t window, std::int32_t position,
               std::int32_t keys, Meanwhile& meanwhile) {
  constexpr bool kPairs = kPerWord<T> == 2;
  const TileLanesView& view = s.view(tile);
  const std::int64_t panel = tile * shape.tile_size();  // also where the tile's rows begin
  const std::int64_t stride = words<T>(shape.padded), depth = words<T>(shape.head_dim);
  const int vectors_of_head = static_cast<int>(shape.padded / kWidth);
  const float *key_words = kPairs ? s.key_pairs : s.keys, *d_score_words = kPairs ? s.d_score_pairs : s.d_scores;
  Strip strips[kKeyBlock];
  const int count = find_strips<kPerWord<T>>(view, window, position, keys, strips);
  const auto multiply = [&meanwhile](const BlockProduct& product) {
    meanwhile.some();
    multiply_as<T>(product);
  };
  for (int i = 0; i < count; ++i) {
    const Strip& strip = strips[i];
    const std::int64_t lane = strip.vector * kWidth, lane_words = words<T>(strip.vectors * kWidth);
    const std::int64_t first_word = words<T>(lane), key_word = strip.key / kPerWord<T>;
    const std::int64_t row = strip.key * kTileLanes, sums = strip.key * shape.padded;
    multiply({s.keys + strip.key * stride, stride, 1, s.queries + panel + lane, kTileLanes, s.weights + row + lane,
              kTileLanes, strip.keys, strip.vectors, depth, false});
    multiply({s.values + strip.key * stride, stride, 1, s.d_outputs + panel + lane, kTileLanes, s.d_scores + row + lane,
              kTileLanes, strip.keys, strip.vectors, depth, false});
    score_gradients<T>(s, view, strip, tile, window, position, score_scale<T>(shape.head_dim));
    multiply({s.weights + row + first_word, kTileLanes, 1, s.d_output_rows + panel + first_word * shape.padded,
              shape.padded, s.d_values + sums, shape.padded, strip.keys, vectors_of_head, lane_words, true});
    multiply({s.d_scores + row + first_word, kTileLanes, 1, s.query_rows + panel + first_word * shape.padded,
              shape.padded, s.d_keys + sums, shape.padded, strip.keys, vectors_of_head, lane_words, true});
    multiply({key_words + key_word * shape.padded, 1, shape.padded, d_score_words + key_word * kTileLanes + lane,
              kTileLanes, s.d_queries + panel + lane, kTileLanes, shape.head_dim, strip.vectors, words<T>(strip.keys),
              true});
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
                      const TileShape& shape, const Scratch& s, Meanwhile& meanwhile, float* d_k, float* d_v) {
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
    pair_columns<T>(s.keys, keys, shape.padded, s.key_pairs);
    clear(s.d_keys, keys * shape.padded);
    clear(s.d_values, keys * shape.padded);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
      propagate<T>(s, shape, tile, call.window, stream.position + key, keys, meanwhile);
    }
    scatter_keys(cursor, keys, s.d_keys, shape, d_k);
    scatter_keys(cursor, keys, s.d_values, shape, d_v);
  }
}

// lse in base 2 and delta of a tile's lanes, 0 past the block's end.
template <typename T>
void load_statistics(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, const TileShape& shape,
                     const TileRows<const T>& outputs, const TileRows<const T>& d_outputs, int tile, const Scratch& s) {
  float *lse = s.lse + tile * kTileLanes, *delta = s.delta + tile * kTileLanes;
  clear(lse, kTileLanes);
  clear(delta, kTileLanes);
  const std::int64_t first_head = static_cast<std::int64_t>(block.token) * call.heads + kv_head * shape.group;
  for_rows(outputs, shape, tile, [&](std::int32_t lane, const T* output) {
    const std::int32_t row = tile * kTileLanes + lane;
    lse[lane] =
        kLog2E * call.lse[first_head + static_cast<std::int64_t>(row / shape.group) * call.heads + row % shape.group];
    const T* gradient = d_outputs.data + (output - outputs.data);
    VecF products = {};
    for_vectors(shape.head_dim, [&](auto load, auto) { products += load(output) * load(gradient); });
    delta[lane] = sum(products);
  });
}

// A tile's rows of a matrix as both kinds of operand: words [kTileLanes, padded] along lanes, and a panel, times scale
// where it is not in pairs.
template <typename T>
void load_operands(const TileRows<const T>& rows, const TileShape& shape, int tile, float scale, const Scratch& s,
                   float* along_lanes, float* panel) {
  float* loaded = kPerWord<T> == 1 ? along_lanes : s.rows;
  load_rows(rows, shape, tile, loaded);
  load_panel<T>(loaded, shape, scale, panel);
  pair_columns<T>(loaded, kTileLanes, shape.padded, along_lanes);
}

template <typename T>
void backward(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, const NextQueries& next, float* d_k,
              float* d_v, float* scratch) {
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
    load_operands(queries, shape, tile, query_scale<T>(call.head_dim), s, s.query_rows + tile * panel,
                  s.queries + tile * panel);
    load_operands(d_outputs, shape, tile, 1.0f, s, s.d_output_rows + tile * panel, s.d_outputs + tile * panel);
    load_statistics(call, block, kv_head, shape, outputs, d_outputs, tile, s);
  }
  clear(s.d_queries, shape.tiles * panel);
  const std::int64_t products = products_of(call, block, shape);
  const auto of_next = [&](const void* matrix) {
    return Ahead(rows_of<T>(call, matrix, next.token, next.count, next.kv_head), products);
  };
  Meanwhile meanwhile{Ahead(rows_of<T>(call, call.d_q, block.token, block.count, kv_head), products), of_next(call.q),
                      of_next(call.out), of_next(call.d_out)};
  for (int i = 0; i < block.streams; ++i) {
    propagate_stream<T>(call, block, call.streams[block.first_stream + i], kv_head, shape, s, meanwhile, d_k, d_v);
  }
  const TileRows<T> d_queries{static_cast<T*>(call.d_q) + first, stride};
  float scales[kTileLanes];
  for (float& lane : scales) lane = scale;
  for (int tile = 0; tile < shape.tiles; ++tile) {
    store_panel(s.d_queries + tile * panel, shape, tile, scales, d_queries, s.rows);
  }
}

template <typename T>
void add_up(const float* const* parts, std::int32_t count, float scale, void* to, std::int64_t n) {
  for_vectors(n, [=](auto load, auto store) {
    VecF total = load(parts[0]);
    for (std::int32_t i = 1; i < count; ++i) total += load(parts[i]);
    store(static_cast<T*>(to), total * scale);
  });
}

}  // namespace

const AttentionBackwardKernels attention_backward_kernels = {
    scratch_floats, {backward<float>, backward<Bf16>}, {add_up<float>, add_up<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
