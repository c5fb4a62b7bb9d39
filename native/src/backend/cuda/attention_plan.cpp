#include "attention_plan.h"

#include <algorithm>
#include <climits>
#include <numeric>

namespace tempora {
namespace {

// enter INT_MAX is seen by no key's range, leave 0 shows itself to no query.
constexpr VisibleRange kNobody{INT_MAX, 0};

std::int32_t tiles_of(std::int32_t tokens, std::int32_t size) { return (tokens + size - 1) / size; }

// A node's tokens come before its children, whose subtrees follow one after another.
std::vector<VisibleRange> visible_ranges(const ForestLayout& layout, std::size_t padded) {
  std::vector<std::int32_t> size(layout.nodes), first(layout.nodes), next(layout.nodes);
  for (std::int32_t node = layout.nodes - 1; node >= 0; --node) {
    size[node] += layout.node_length(node);
    if (layout.node_parent[node] >= 0) size[layout.node_parent[node]] += size[node];
  }
  std::vector<VisibleRange> ranges(padded, kNobody);
  std::int32_t roots = 0;
  for (std::int32_t node = 0; node < layout.nodes; ++node) {
    std::int32_t& place = layout.node_parent[node] < 0 ? roots : next[layout.node_parent[node]];
    first[node] = place;
    place += size[node];
    next[node] = first[node] + layout.node_length(node);
    for (std::int32_t i = 0; i < layout.node_length(node); ++i) {
      ranges[layout.node_start[node] + i] = {first[node] + i, first[node] + size[node]};
    }
  }
  return ranges;
}

// A tile behind the last token has the range of one token far away, in no window's reach.
std::vector<PositionRange> position_ranges(const ForestLayout& layout, std::size_t tiles) {
  std::vector<PositionRange> ranges(tiles, {INT_MAX, 0});
  for (std::int32_t t = 0; t < layout.tokens; ++t) {
    PositionRange& range = ranges[static_cast<std::size_t>(t / kTileTokens)];
    range.lowest = std::min(range.lowest, layout.position[t]);
    range.highest = std::max(range.highest, layout.position[t]);
  }
  return ranges;
}

class PairsBuilder {
 public:
  PairsBuilder(const ForestLayout& layout, const std::vector<VisibleRange>& ranges)
      : layout_(layout), ranges_(ranges), node_of_(layout.tokens) {
    for (std::int32_t node = 0; node < layout.nodes; ++node) {
      std::fill(node_of_.begin() + layout.node_start[node], node_of_.begin() + layout.node_start[node + 1], node);
    }
  }

  // For each tile of that many queries, the tiles of keys that any of them sees.
  TilePairs of_queries(std::int32_t queries) const {
    TilePairs pairs;
    pairs.start.push_back(0);
    for (std::int32_t begin = 0; begin < layout_.tokens; begin += queries) {
      const std::int32_t end = std::min(begin + queries, layout_.tokens);
      std::vector<std::int32_t> tiles;
      for (std::int32_t t = begin; t < end; t = layout_.node_start[node_of_[t] + 1]) {
        const std::int32_t last = std::min(end, layout_.node_start[node_of_[t] + 1]) - 1;
        add_tiles_seen_by(last, tiles);
      }
      std::sort(tiles.begin(), tiles.end());
      tiles.erase(std::unique(tiles.begin(), tiles.end()), tiles.end());
      for (const std::int32_t tile : tiles) pairs.pair.push_back(2 * tile + (is_full(begin, queries, tile) ? 0 : 1));
      pairs.start.push_back(static_cast<std::int32_t>(pairs.pair.size()));
    }
    return pairs;
  }

 private:
  void add_tiles_seen_by(std::int32_t query, std::vector<std::int32_t>& tiles) const {
    for (std::int32_t node = node_of_[query]; node >= 0; node = layout_.node_parent[node]) {
      const std::int32_t begin = layout_.node_start[node];
      const std::int32_t end = node == node_of_[query] ? query + 1 : layout_.node_start[node + 1];
      if (begin == end) continue;
      for (std::int32_t tile = begin / kTileTokens; tile <= (end - 1) / kTileTokens; ++tile) tiles.push_back(tile);
    }
  }

  bool is_full(std::int32_t first_query, std::int32_t queries, std::int32_t tile) const {
    std::int32_t earliest = INT_MAX, latest = 0;
    for (std::int32_t t = first_query; t < first_query + queries; ++t) {
      earliest = std::min(earliest, ranges_[t].enter);
      latest = std::max(latest, ranges_[t].enter);
    }
    for (std::int32_t j = tile * kTileTokens; j < (tile + 1) * kTileTokens; ++j) {
      if (ranges_[j].enter > earliest || ranges_[j].leave <= latest) return false;
    }
    return true;
  }

  const ForestLayout& layout_;
  const std::vector<VisibleRange>& ranges_;
  std::vector<std::int32_t> node_of_;  // [T]
};

// The same pairs from the other side.
TilePairs turned(const TilePairs& pairs, std::int32_t tiles) {
  std::vector<std::vector<std::int32_t>> of(tiles);
  for (std::size_t tile = 0; tile + 1 < pairs.start.size(); ++tile) {
    for (std::int32_t p = pairs.start[tile]; p < pairs.start[tile + 1]; ++p) {
      of[pairs.pair[p] / 2].push_back(static_cast<std::int32_t>(2 * tile) + pairs.pair[p] % 2);
    }
  }
  TilePairs result;
  result.start.push_back(0);
  for (const auto& list : of) {
    result.pair.insert(result.pair.end(), list.begin(), list.end());
    result.start.push_back(static_cast<std::int32_t>(result.pair.size()));
  }
  return result;
}

void put_in_order(TilePairs& pairs) {
  pairs.order.resize(pairs.start.size() - 1);
  std::iota(pairs.order.begin(), pairs.order.end(), 0);
  const auto count = [&](std::int32_t tile) { return pairs.start[tile + 1] - pairs.start[tile]; };
  std::stable_sort(pairs.order.begin(), pairs.order.end(),
                   [&](std::int32_t a, std::int32_t b) { return count(a) > count(b); });
}

}  // namespace

AttentionTiles make_attention_tiles(const ForestLayout& layout) {
  const auto padded = static_cast<std::size_t>(tiles_of(layout.tokens, kWideTileTokens)) * kWideTileTokens;
  AttentionTiles tiles;
  tiles.range = visible_ranges(layout, padded);
  tiles.position = layout.position;
  tiles.position.resize(padded, 0);
  tiles.tile_position = position_ranges(layout, padded / kTileTokens);
  const PairsBuilder builder(layout, tiles.range);
  tiles.wide = builder.of_queries(kWideTileTokens);
  tiles.queries = builder.of_queries(kTileTokens);
  tiles.keys = turned(tiles.queries, tiles_of(layout.tokens, kTileTokens));
  for (TilePairs* pairs : {&tiles.wide, &tiles.queries, &tiles.keys}) put_in_order(*pairs);
  return tiles;
}

}  // namespace tempora
