// What tree attention works out of a forest once for all layers.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend.h"

namespace tempora {

// Query t sees key j where enter[j] <= enter[t] < leave[j]: tokens are numbered in preorder of their trees. (That they
// lie in the window is a matter of positions.)
struct VisibleRange {
  std::int32_t enter, leave;
};

// Of a tile's tokens.
struct PositionRange {
  std::int32_t lowest, highest;
};

// The tiles that each tile attends to, or is attended by: its pairs are pair[start[tile]] ..., each the other tile's
// number times two, and one more where not every query of the pair sees every key.
struct TilePairs {
  std::vector<std::int32_t> start;  // [tiles + 1]
  std::vector<std::int32_t> pair;   // ascending within a tile
  std::vector<std::int32_t> order;  // [tiles] those with the most pairs first, for the device to begin with
};

constexpr std::int32_t kTileTokens = 64;
constexpr std::int32_t kWideTileTokens = 128;  // of queries in the forward pass

struct AttentionTiles {
  // [T up to a whole number of wide tiles]; the tokens behind the last one see nothing and are seen by none.
  std::vector<VisibleRange> range;
  std::vector<std::int32_t> position;
  std::vector<PositionRange> tile_position;  // of each tile of kTileTokens, of a wide tile's halves too
  TilePairs wide;                            // a wide tile of queries: tiles of keys
  TilePairs queries;                         // a tile of queries: tiles of keys
  TilePairs keys;                            // a tile of keys: tiles of queries
};

AttentionTiles make_attention_tiles(const ForestLayout& layout);

}  // namespace tempora
