#include "forest.h"

#include <algorithm>
#include <compare>

namespace tempora {

std::vector<std::int32_t> ForestLayout::path(std::int32_t node) const {
  std::vector<std::int32_t> nodes;
  for (; node >= 0; node = node_parent[node]) nodes.push_back(node);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

std::int32_t ForestLayout::node_of(std::int32_t token) const {
  return static_cast<std::int32_t>(std::ranges::upper_bound(node_start, token) - node_start.begin()) - 1;
}

ForestLayout layout_of(const Forest& forest) {
  ForestLayout layout;
  layout.tokens = static_cast<std::int32_t>(forest.tokens.size());
  layout.nodes = static_cast<std::int32_t>(forest.node_parent.size());
  layout.node_start = forest.node_start;
  layout.node_parent = forest.node_parent;
  layout.node_position.resize(layout.nodes);
  layout.node_tree.resize(layout.nodes);
  layout.position.resize(layout.tokens);
  for (std::int32_t node = 0; node < layout.nodes; ++node) {
    const std::int32_t parent = layout.node_parent[node];
    layout.node_position[node] = parent < 0 ? 0 : layout.node_position[parent] + layout.node_length(parent);
    layout.node_tree[node] = parent < 0 ? layout.trees++ : layout.node_tree[parent];
    for (std::int32_t i = layout.node_start[node]; i < layout.node_start[node + 1]; ++i) {
      layout.position[i] = layout.node_position[node] + i - layout.node_start[node];
    }
  }
  return layout;
}

EdgeList edges_of(const Forest& forest, const ForestLayout& layout) {
  // Sorted by tree, then by source: a tree's rows are adjacent, and so are siblings, whose first tokens all hang on the
  // last token of their parent.
  struct Edge {
    std::int32_t tree, source, target;
    auto operator<=>(const Edge&) const = default;
  };
  std::vector<Edge> edges;
  for (std::int32_t node = 0; node < layout.nodes; ++node) {
    if (forest.node_scored[node] == 0) continue;
    const std::int32_t begin = layout.node_start[node];
    const std::int32_t parent = layout.node_parent[node];
    const std::int32_t tree = layout.node_tree[node];
    if (parent >= 0) edges.push_back({tree, layout.node_start[parent + 1] - 1, begin});
    for (std::int32_t i = begin + 1; i < layout.node_start[node + 1]; ++i) edges.push_back({tree, i - 1, i});
  }
  std::sort(edges.begin(), edges.end());
  EdgeList list;
  list.target.reserve(edges.size());
  for (const auto& [tree, source, target] : edges) {
    if (list.source.empty() || list.source.back() != source) {
      list.row_start.push_back(static_cast<std::int32_t>(list.size()));
      list.source.push_back(source);
      list.source_tree.push_back(tree);
    }
    list.target.push_back(target);
  }
  list.row_start.push_back(static_cast<std::int32_t>(list.size()));
  return list;
}

}  // namespace tempora
