// Online softmax in base 2: scores are scaled by log2(e) / sqrt(C), so that exp2 serves.
#include "attention.h"
#include "attention_tiles.h"

namespace tempora::TEMPORA_ISA {
namespace {

// A thread's scratch. Per tile: query and output panels [padded, kTileLanes], running maximum and sum [kTileLanes].
struct Scratch {
  float* rows;  // of one tile or key block, [kTileLanes, padded]
  float *queries, *outputs, *maximum, *sum, *views;
  float *keys, *values, *scores;  // [kKeyBlock, padded], the same in words along keys, [kKeyBlock, kTileLanes]

  std::int64_t place(const TileShape& shape, float* base) {
    ScratchCursor cursor(base);
    const std::int64_t panel = shape.tile_size();
    rows = cursor.take(panel);
    queries = cursor.take(shape.tiles * panel);
    outputs = cursor.take(shape.tiles * panel);
    maximum = cursor.take(shape.tiles * kTileLanes);
    sum = cursor.take(shape.tiles * kTileLanes);
    views = cursor.take(shape.tiles * kViewFloats);
    keys = cursor.take(kKeyBlock * shape.padded);
    values = cursor.take(kKeyBlock * shape.padded);
    scores = cursor.take(kKeyBlock * kTileLanes);
    return cursor.used();
  }

  TileLanesView& view(int tile) const { return *reinterpret_cast<TileLanesView*>(views + tile * kViewFloats); }
};

std::int64_t scratch_floats(int group, int head_dim) {
  return Scratch{}.place(TileShape(group, head_dim, kQueryBlock), nullptr);
}

// Scales scores where the queries were not, hides what is not visible, raises block_maximum.
template <typename T>
void mask_scores(const TileLanesView& view, const Strip& strip, std::int32_t window, std::int32_t position, float scale,
                 float* scores, VecF (&block_maximum)[kTileVectors]) {
  for (std::int32_t key = strip.key; key < strip.key + strip.keys; ++key) {
    for (int v = strip.vector; v < strip.vector + strip.vectors; ++v) {
      float* at = scores + key * kTileLanes + v * kWidth;
      VecF score = load(at);
      if (kScalesScores<T>) score *= scale;
      if (strip.masked) score = visible(view, v, window, position + key) ? score : splat(kHiddenScore);
      if (kScalesScores<T> || strip.masked) store(at, score);
      block_maximum[v] = max(score, block_maximum[v]);
    }
  }
}

// Takes the block's maximum into the running one and rescales what was summed under the old.
void raise_maximum(const TileShape& shape, const VecF (&block_maximum)[kTileVectors], float* maximum, float* sum,
                   float* outputs) {
  VecF factor[kTileVectors];
  VecI raised = {};
  for (int v = 0; v < kTileVectors; ++v) {
    const VecF old = load(maximum + v * kWidth);
    const VecF now = max(block_maximum[v], old);
    raised |= now != old;
    factor[v] = exp2(old - now);
    store(maximum + v * kWidth, now);
    store(sum + v * kWidth, load(sum + v * kWidth) * factor[v]);
  }
  std::int32_t lanes[kWidth], any = 0;
  __builtin_memcpy(lanes, &raised, sizeof lanes);
  for (const std::int32_t lane : lanes) any |= lane;
  if (any == 0) return;
  for (std::int32_t c = 0; c < shape.head_dim; ++c) {
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = outputs + c * kTileLanes + v * kWidth;
      store(at, load(at) * factor[v]);
    }
  }
}

// Scores become weights, in words along keys, in place: word w of a lane is made of the scores at w and behind it.
template <typename T>
void exponentiate(const Strip& strip, const float* maximum, float* scores, float* sum) {
  constexpr int kStep = kPerWord<T>;
  const std::int32_t end = strip.key + strip.keys;
  for (int v = strip.vector; v < strip.vector + strip.vectors; ++v) {
    const VecF running = load(maximum + v * kWidth);
    // A lane that has seen nothing yet: hidden scores must come out as 0, not as exp2(0).
    const VecF base = running == kHiddenScore ? VecF{} : running;
    VecF total = load(sum + v * kWidth);
    for (std::int32_t key = strip.key; key < end; key += kStep) {
      const float* at = scores + key * kTileLanes + v * kWidth;
      const VecF weight = exp2(load(at) - base);
      total += weight;
      float* word = scores + key / kStep * kTileLanes + v * kWidth;
      if constexpr (kStep == 1) {
        store(word, weight);
      } else {
        const VecF next = key + 1 < end ? exp2(load(at + kTileLanes) - base) : VecF{};
        total += next;
        store(word, paired(weight, next));
      }
    }
    store(sum + v * kWidth, total);
  }
}

template <typename T>
void attend(const Scratch& s, const TileShape& shape, int tile, std::int32_t window, std::int32_t position,
            std::int32_t keys) {
  const TileLanesView& view = s.view(tile);
  const std::int64_t panel = shape.tile_size();
  Strip strips[kKeyBlock];
  const int count = find_strips<kPerWord<T>>(view, window, position, keys, strips);
  if (count == 0) return;
  VecF block_maximum[kTileVectors];
  for (VecF& m : block_maximum) m = splat(kHiddenScore);
  for (int i = 0; i < count; ++i) {
    const Strip& strip = strips[i];
    multiply_as<T>({s.keys + strip.key * words<T>(shape.padded), words<T>(shape.padded), 1,
                    s.queries + tile * panel + strip.vector * kWidth, kTileLanes,
                    s.scores + strip.key * kTileLanes + strip.vector * kWidth, kTileLanes, strip.keys, strip.vectors,
                    words<T>(shape.head_dim), false});
    mask_scores<T>(view, strip, window, position, score_scale<T>(shape.head_dim), s.scores, block_maximum);
  }
  float* maximum = s.maximum + tile * kTileLanes;
  float* sum = s.sum + tile * kTileLanes;
  float* outputs = s.outputs + tile * panel;
  raise_maximum(shape, block_maximum, maximum, sum, outputs);
  for (int i = 0; i < count; ++i) {
    const Strip& strip = strips[i];
    exponentiate<T>(strip, maximum, s.scores, sum);
    const std::int64_t word = strip.key / kPerWord<T>;
    multiply_as<T>({s.values + word * shape.padded, 1, shape.padded,
                    s.scores + word * kTileLanes + strip.vector * kWidth, kTileLanes, outputs + strip.vector * kWidth,
                    kTileLanes, shape.head_dim, strip.vectors, words<T>(strip.keys), true});
  }
}

template <typename T>
void attend_stream(const TreeAttentionCall& call, const QueryBlock& block, const KeyStream& stream, int kv_head,
                   const TileShape& shape, const Scratch& s) {
  const int first_tile = stream.row_begin * shape.group / kTileLanes;
  const int last_tile = (stream.row_end * shape.group - 1) / kTileLanes;
  for (int tile = first_tile; tile <= last_tile; ++tile) view_stream(call, block, shape, stream, tile, s.view(tile));
  const std::int64_t stride = static_cast<std::int64_t>(call.kv_heads) * call.head_dim;
  const T* k = static_cast<const T*>(call.k) + static_cast<std::int64_t>(kv_head) * call.head_dim;
  const T* v = static_cast<const T*>(call.v) + static_cast<std::int64_t>(kv_head) * call.head_dim;
  const std::int32_t skip = hidden_keys(call, block, stream);
  for (std::int32_t key = skip; key < stream.count; key += kKeyBlock) {
    const std::int32_t keys = smaller(kKeyBlock, stream.count - key);
    const KeyCursor cursor(call, stream, key);
    gather_keys(cursor, keys, k, stride, shape, s.keys);
    float* values = kPerWord<T> == 1 ? s.values : s.rows;
    gather_keys(cursor, keys, v, stride, shape, values);
    pair_columns<T>(values, keys, shape.padded, s.values);
    for (int tile = first_tile; tile <= last_tile; ++tile) {
      attend<T>(s, shape, tile, call.window, stream.position + key, keys);
    }
  }
}

// out = outputs / sum, lse = ln2 · (maximum + log2(sum)).
template <typename T>
void finish_tile(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, const TileShape& shape,
                 const Scratch& s, int tile, const TileRows<T>& out) {
  float* sum = s.sum + tile * kTileLanes;
  for (int lane = 0; lane < kTileLanes; ++lane) {
    const std::int32_t row = tile * kTileLanes + lane;
    if (row < shape.rows) {
      float* lse = call.lse + static_cast<std::int64_t>(block.token + row / shape.group) * call.heads;
      lse[kv_head * shape.group + row % shape.group] =
          s.maximum[tile * kTileLanes + lane] * kLn2 + __builtin_logf(sum[lane]);
    }
    sum[lane] = row < shape.rows ? 1.0f / sum[lane] : 0.0f;
  }
  store_panel(s.outputs + tile * shape.tile_size(), shape, tile, sum, out, s.rows);
}

template <typename T>
void forward(const TreeAttentionCall& call, const QueryBlock& block, int kv_head, float* scratch) {
  const TileShape shape(call.heads / call.kv_heads, call.head_dim, block.count);
  Scratch s;
  s.place(shape, scratch);
  const std::int64_t panel = shape.tile_size();
  const std::int64_t stride = static_cast<std::int64_t>(call.heads) * call.head_dim;
  const std::int64_t first = block.token * stride + static_cast<std::int64_t>(kv_head) * shape.group * call.head_dim;
  const TileRows<const T> queries{static_cast<const T*>(call.q) + first, stride};
  const float scale = query_scale<T>(call.head_dim);
  for (int tile = 0; tile < shape.tiles; ++tile) {
    load_rows(queries, shape, tile, s.rows);
    load_panel<T>(s.rows, shape, scale, s.queries + tile * panel);
  }
  clear(s.outputs, shape.tiles * panel);
  clear(s.sum, shape.tiles * kTileLanes);
  for (int i = 0; i < shape.tiles * kTileLanes; ++i) s.maximum[i] = kHiddenScore;
  for (int i = 0; i < block.streams; ++i) {
    attend_stream<T>(call, block, call.streams[block.first_stream + i], kv_head, shape, s);
  }
  const TileRows<T> out{static_cast<T*>(call.out) + first, stride};
  for (int tile = 0; tile < shape.tiles; ++tile) finish_tile(call, block, kv_head, shape, s, tile, out);
}

}  // namespace

const AttentionForwardKernels attention_forward_kernels = {scratch_floats, {forward<float>, forward<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
