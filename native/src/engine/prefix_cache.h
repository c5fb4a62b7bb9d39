// What a batch keeps of the tokens that it has computed: trees in which every beginning that sequences have in common
// lies once, a tree for each adapter, since the same tokens have other keys and values through another. It outlives
// those who brought it: what nobody uses stays until its pages are wanted.
#pragma once

#include <cstdint>
#include <vector>

#include "kv_cache.h"

namespace tempora {

// A run of tokens below its parent's. The run of a node never changes but by a cut, which leaves its end in the node.
struct PrefixNode {
  std::vector<std::int32_t> tokens;
  CachedTokens cache;         // of the tokens; length is their number
  std::int32_t computed = 0;  // tokens whose keys and values are there
  std::int32_t parent = -1;   // -1 only for a root, which has no tokens
  std::int32_t users = 0;     // who hold the path to this node's end
  std::vector<std::int32_t> children;
  std::uint64_t last_used = 0;
};

class PrefixCache {
 public:
  explicit PrefixCache(PagePool& pool) : pool_(pool) {}

  // A new tree's root. It stays.
  std::int32_t add_root() { return new_node(); }
  // The node below `root` where `tokens` end, held until release(). What the tree has of them is used, the rest is
  // added and waits to be computed. -1, and nothing is held, where the pages cannot be had beside what others hold and
  // `spare` further ones.
  std::int32_t hold(std::int32_t root, const std::vector<std::int32_t>& tokens, std::int64_t spare);
  void release(std::int32_t node);
  // Takes in tokens that were computed below a node by someone who holds it, with the pages that hold them.
  void adopt(std::int32_t parent, std::vector<std::int32_t> tokens, CachedTokens cache);
  // Frees pages that nobody holds, the longest unused first, until so many are free. False where that cannot be.
  bool make_room(std::int64_t pages);

  // Nodes from below the root to `node`.
  std::vector<std::int32_t> path(std::int32_t node) const;
  PrefixNode& node(std::int32_t index) { return nodes_[static_cast<std::size_t>(index)]; }
  const PrefixNode& node(std::int32_t index) const { return nodes_[static_cast<std::size_t>(index)]; }

 private:
  struct Found {
    std::int32_t node;
    std::int32_t tokens;  // how many of those looked for
  };

  bool is_root(std::int32_t index) const { return node(index).parent < 0; }
  Found find(std::int32_t root, const std::vector<std::int32_t>& tokens);
  std::int32_t new_node();
  std::int32_t make_node(std::int32_t parent);
  std::int32_t cut(std::int32_t index, std::int32_t length);
  void touch(std::int32_t node);
  void drop(std::int32_t index);

  PagePool& pool_;
  std::vector<PrefixNode> nodes_;
  std::vector<std::int32_t> unused_;  // numbers of nodes that were dropped
  std::uint64_t clock_ = 0;
};

}  // namespace tempora
