// Query tiles of tree attention. The rows of a query block are its tokens times the query heads of one key/value head;
// kTileLanes of them make a tile, held transposed: vectors run over rows, so that the softmax needs no sum across
// lanes and keys need no transposition.
#pragma once

#include "attention.h"
#include "attention_scratch.h"
#include "attention_words.h"

namespace tempora::TEMPORA_ISA {

// What queries are multiplied by, and then scores.
template <typename T>
inline float query_scale(int head_dim) {
  return kScalesScores<T> ? 1.0f : scaled_for_exp2(head_dim);
}
template <typename T>
inline float score_scale(int head_dim) {
  return kScalesScores<T> ? scaled_for_exp2(head_dim) : 1.0f;
}

constexpr int kTileLanes = kTileVectors * kWidth;
constexpr int kKeyBlock = 64;
constexpr int kStripKeys = 16;

inline std::int32_t smaller(std::int32_t a, std::int32_t b) { return a < b ? a : b; }
inline std::int32_t larger(std::int32_t a, std::int32_t b) { return a > b ? a : b; }

struct TileShape {
  std::int32_t group;     // query heads of a key/value head
  std::int32_t head_dim;  // C
  std::int64_t padded;    // head_dim up to a whole vector
  std::int32_t rows;      // tokens · group
  std::int32_t tiles;

  TileShape(int group_size, int dim, int tokens)
      : group(group_size),
        head_dim(dim),
        padded(whole_vectors(dim)),
        rows(tokens * group_size),
        tiles((tokens * group_size + kTileLanes - 1) / kTileLanes) {}

  // Floats of a panel or of a tile's rows.
  std::int64_t tile_size() const { return padded * kTileLanes; }
};

// What the lanes of a tile see of one stream of keys: positions, -1 where nothing.
struct TileLanesView {
  std::int32_t position[kTileLanes];
  std::int32_t lowest[kTileVectors];   // over the lanes that see something
  std::int32_t highest[kTileVectors];  // -1: none does
  bool all[kTileVectors];              // every lane sees something
};
constexpr std::int64_t kViewFloats = (sizeof(TileLanesView) + 63) / 64 * 16;

inline void view_stream(const TreeAttentionCall& call, const QueryBlock& block, const TileShape& shape,
                        const KeyStream& stream, int tile, TileLanesView& view) {
  std::int32_t token = tile * kTileLanes / shape.group;
  std::int32_t head = tile * kTileLanes % shape.group;
  for (int v = 0; v < kTileVectors; ++v) {
    std::int32_t lowest = INT32_MAX, highest = -1;
    bool all = true;
    for (int i = 0; i < kWidth; ++i) {
      const bool sees = token >= stream.row_begin && token < stream.row_end;
      const std::int32_t position = sees ? call.position[block.token + token] : -1;
      view.position[v * kWidth + i] = position;
      all = all && sees;
      if (sees) lowest = smaller(lowest, position);
      highest = larger(highest, position);
      if (++head == shape.group) {
        head = 0;
        ++token;
      }
    }
    view.lowest[v] = lowest;
    view.highest[v] = highest;
    view.all[v] = all;
  }
}

// The first keys of a stream, which lie before every row's window.
inline std::int32_t hidden_keys(const TreeAttentionCall& call, const QueryBlock& block, const KeyStream& stream) {
  std::int32_t lowest = INT32_MAX;
  for (std::int32_t i = stream.row_begin; i < stream.row_end; ++i) {
    lowest = smaller(lowest, call.position[block.token + i]);
  }
  return larger(0, lowest - call.window + 1 - stream.position);
}

// Keys of a key block that the same vectors of a tile attend to.
struct Strip {
  std::int32_t key, keys;        // in the key block
  std::int32_t vector, vectors;  // of the tile
  bool masked;                   // some lane does not see some key
};

// The vectors that see some of the keys at [at, last], in `key` 0 and `keys` 0; no vectors where none does.
inline Strip see_keys(const TileLanesView& view, std::int32_t window, std::int32_t at, std::int32_t last) {
  std::int32_t begin = kTileVectors, end = 0;
  for (int v = 0; v < kTileVectors; ++v) {
    if (view.highest[v] < at || view.lowest[v] - window >= last) continue;
    begin = smaller(begin, v);
    end = v + 1;
  }
  bool masked = false;
  for (int v = begin; v < end; ++v) {
    masked = masked || !view.all[v] || view.lowest[v] < last || view.highest[v] - window >= at;
  }
  return {0, 0, begin, end - begin, masked};
}

// The strips of keys at positions [position, position + keys), ascending; returns how many. Ranges of vectors that
// differ are joined until a strip has kStripKeys keys: less work would be lost in starting products. A strip begins at
// a whole multiple of kStep keys, so that what stands in one word of an operand stays together.
template <int kStep>
inline int find_strips(const TileLanesView& view, std::int32_t window, std::int32_t position, std::int32_t keys,
                       Strip (&strips)[kKeyBlock]) {
  int count = 0;
  bool open = false;
  for (std::int32_t key = 0; key < keys; key += kStep) {
    const std::int32_t more = smaller(kStep, keys - key);
    Strip next = see_keys(view, window, position + key, position + key + more - 1);
    if (next.vectors <= 0) {
      open = false;
      continue;
    }
    next.key = key;
    next.keys = more;
    Strip* last = open ? &strips[count - 1] : nullptr;
    const bool same =
        open && last->vector == next.vector && last->vectors == next.vectors && last->masked == next.masked;
    if (same || (open && last->keys < kStripKeys)) {
      const std::int32_t end = larger(next.vector + next.vectors, last->vector + last->vectors);
      // A vector that joins sees none, or not all, of the strip's other keys.
      last->masked = last->masked || next.masked || !same;
      last->vector = smaller(next.vector, last->vector);
      last->vectors = end - last->vector;
      last->keys += more;
    } else {
      strips[count++] = next;
      open = true;
    }
  }
  return count;
}

// Which lanes see the key at `at`.
inline VecI visible(const TileLanesView& view, int vector, std::int32_t window, std::int32_t at) {
  VecI position;
  __builtin_memcpy(&position, view.position + vector * kWidth, sizeof position);
  return (position >= at) & (position - window < at);
}

// Rows of a [T, heads · head_dim] matrix that make up a tile.
template <typename T>
struct TileRows {
  T* data;  // the block's first token, the first head of the group
  std::int64_t token_stride;
};

// Calls body(lane, pointer to the row) for the tile's lanes up to the block's end.
template <typename T, typename Body>
inline void for_rows(const TileRows<T>& rows, const TileShape& shape, int tile, Body body) {
  std::int32_t head = tile * kTileLanes % shape.group;
  T* token = rows.data + tile * kTileLanes / shape.group * rows.token_stride;
  const std::int32_t lanes = smaller(kTileLanes, shape.rows - tile * kTileLanes);
  for (std::int32_t lane = 0; lane < lanes; ++lane) {
    body(lane, token + head * static_cast<std::int64_t>(shape.head_dim));
    if (++head == shape.group) {
      head = 0;
      token += rows.token_stride;
    }
  }
}

// to words [kTileLanes, words(padded)] = the tile's rows, then zeros.
template <typename T>
inline void load_rows(const TileRows<const T>& rows, const TileShape& shape, int tile, float* to) {
  const std::int64_t stride = words<T>(shape.padded);
  for_rows(rows, shape, tile,
           [&](std::int32_t lane, const T* row) { word_row(row, shape.head_dim, to + lane * stride); });
  const std::int32_t lanes = smaller(kTileLanes, shape.rows - tile * kTileLanes);
  clear(to + lanes * stride, (kTileLanes - lanes) * stride);
}

// panel words [words(padded), kTileLanes] = rows [kTileLanes, words(padded)] transposed, times scale where a word is
// one number. A row of pairs may end within a vector: then what follows it in memory is turned too, into rows of the
// panel that nobody reads.
template <typename T>
inline void load_panel(const float* rows, const TileShape& shape, float scale, float* panel) {
  const std::int64_t stride = words<T>(shape.padded);
  for (int v = 0; v < kTileVectors; ++v) {
    for (std::int64_t c = 0; c < stride; c += kWidth) {
      VecF x[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) {
        x[i] = load(rows + (v * kWidth + i) * stride + c);
        if (kPerWord<T> == 1) x[i] *= scale;
      }
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) store(panel + (c + i) * kTileLanes + v * kWidth, x[i]);
    }
  }
}

// The tile's rows = panel transposed, times scale (of each lane). buffer: f32 [kTileLanes, padded].
template <typename T>
inline void store_panel(const float* panel, const TileShape& shape, int tile, const float* scale,
                        const TileRows<T>& rows, float* buffer) {
  for (int v = 0; v < kTileVectors; ++v) {
    const VecF factor = load(scale + v * kWidth);
    for (std::int64_t c = 0; c < shape.padded; c += kWidth) {
      VecF x[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) x[i] = factor * load(panel + (c + i) * kTileLanes + v * kWidth);
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; ++i) store(buffer + (v * kWidth + i) * shape.padded + c, x[i]);
    }
  }
  for_rows(rows, shape, tile, [&](std::int32_t lane, T* row) {
    const float* from = buffer + lane * shape.padded;
    for_vectors(shape.head_dim, [=](auto load, auto store) { store(row, load(from)); });
  });
}

// Walks the keys of a stream in order.
class KeyCursor {
 public:
  KeyCursor(const TreeAttentionCall& call, const KeyStream& stream, std::int32_t skip)
      : segment_(call.segments + stream.first_segment), offset_(skip) {
    settle();
  }

  // The keys from here on that are adjacent in memory, at most `keys`.
  KeySegment take(std::int32_t keys) {
    settle();
    const KeySegment run{segment_->token + offset_, segment_->local + offset_,
                         smaller(keys, segment_->count - offset_)};
    offset_ += run.count;
    return run;
  }

 private:
  void settle() {
    while (offset_ > 0 && offset_ >= segment_->count) offset_ -= (segment_++)->count;
  }

  const KeySegment* segment_;
  std::int32_t offset_;
};

// rows words [keys, words(padded)] = the next `keys` keys (or values) of the cursor's stream.
template <typename T>
inline void gather_keys(KeyCursor cursor, std::int32_t keys, const T* data, std::int64_t token_stride,
                        const TileShape& shape, float* rows) {
  const std::int64_t stride = words<T>(shape.padded);
  for (std::int32_t done = 0; done < keys;) {
    const KeySegment run = cursor.take(keys - done);
    for (std::int32_t i = 0; i < run.count; ++i, ++done) {
      word_row(data + (run.token + i) * token_stride, shape.head_dim, rows + done * stride);
    }
  }
}

}  // namespace tempora::TEMPORA_ISA
