// A forest is a packed batch of token trees: no padding, no mask tensor, any depth.
#pragma once

#include <cstdint>
#include <vector>

namespace tempora {

// T tokens in N nodes. A token sees its own node up to itself and all of its node's ancestors.
struct Forest {
  std::vector<std::int32_t> tokens;       // [T] node after node
  std::vector<std::int32_t> node_start;   // [N + 1]
  std::vector<std::int32_t> node_parent;  // [N] an earlier node, or -1
  std::vector<std::uint8_t> node_scored;  // [N] 1: log-probs of its tokens are wanted
  // [trees] the number of the adapter that each tree goes through, -1 for the base alone, in order of the roots. Empty:
  // all go through the active adapter, if there is one.
  std::vector<std::int32_t> root_adapter;
};

// What the geometry of a forest says, worked out once. Host data.
struct ForestLayout {
  std::int32_t tokens = 0;  // T
  std::int32_t nodes = 0;   // N
  std::int32_t trees = 0;
  std::vector<std::int32_t> node_start;     // [N + 1]
  std::vector<std::int32_t> node_parent;    // [N]
  std::vector<std::int32_t> node_position;  // [N] position of a node's first token = length of its ancestors
  std::vector<std::int32_t> node_tree;      // [N] number of the tree, in order of the roots
  std::vector<std::int32_t> position;       // [T]

  std::int32_t node_length(std::int32_t node) const { return node_start[node + 1] - node_start[node]; }
  std::int32_t node_of(std::int32_t token) const;
  // Ancestors of a node from its root to itself.
  std::vector<std::int32_t> path(std::int32_t node) const;
};

ForestLayout layout_of(const Forest& forest);

// The scored tokens as edges: source row (the token before, on the path) -> target token. Siblings share a row.
struct EdgeList {
  std::vector<std::int32_t> source;       // [R] distinct token indices, ascending within a tree, tree after tree
  std::vector<std::int32_t> source_tree;  // [R] tree of each row, ascending
  std::vector<std::int32_t> row_start;    // [R + 1] edges of row r are [row_start[r], row_start[r + 1])
  std::vector<std::int32_t> target;       // [E] the token index that is predicted

  std::size_t size() const { return target.size(); }  // E
};

// Edges of scored nodes; the first token of a root has no source and no edge. Empty where nothing is scored.
EdgeList edges_of(const Forest& forest, const ForestLayout& layout);

}  // namespace tempora
