#include "attention_plan.h"

#include <algorithm>

namespace tempora {
namespace {

// Query tokens that a chunk should have at least, and chunks that a forest should have for threads to share.
constexpr std::int32_t kChunkTokens = 128;
constexpr std::int32_t kForestChunks = 16;

// Adjacent rows of a block that belong to one node.
struct Piece {
  std::int32_t node;
  std::int32_t row_begin, row_end;
};

// Keys of a path that a range of pieces sees.
struct PendingStream {
  std::int32_t piece_begin, piece_end;
  std::vector<std::int32_t> nodes;  // each the next one's parent
};

class PlanBuilder {
 public:
  explicit PlanBuilder(const ForestLayout& layout)
      : layout_(layout), plan_(std::make_unique<CpuAttentionPlan>()), seen_by_(layout.nodes), local_(layout.nodes) {}

  std::unique_ptr<CpuAttentionPlan> build() {
    number_tokens();
    std::vector<std::vector<std::int32_t>> nodes(plan_->trees.size());
    for (std::int32_t node = 0; node < layout_.nodes; ++node) nodes[layout_.node_tree[node]].push_back(node);
    for (std::size_t tree = 0; tree < nodes.size(); ++tree) {
      const std::size_t first_block = plan_->blocks.size();
      add_blocks(nodes[tree]);
      add_chunks(static_cast<std::int32_t>(tree), first_block);
    }
    for (AttentionTree& tree : plan_->trees) {
      tree.tokens_before = plan_->gradient_rows;
      plan_->gradient_rows += static_cast<std::int64_t>(tree.tokens) * tree.chunks;
    }
    plan_->sees.resize(static_cast<std::size_t>(plan_->gradient_rows));
    for (const GradientChunk& chunk : plan_->chunks) mark_seen(chunk);
    const auto cost = [&](const GradientChunk& chunk) { return cost_of(chunk.first_block, chunk.blocks); };
    std::stable_sort(plan_->chunks.begin(), plan_->chunks.end(),
                     [&](const GradientChunk& a, const GradientChunk& b) { return cost(a) > cost(b); });
    return std::move(plan_);
  }

 private:
  void number_tokens() {
    plan_->position = layout_.position;
    plan_->tree.resize(layout_.tokens);
    plan_->local.resize(layout_.tokens);
    for (std::int32_t node = 0; node < layout_.nodes; ++node) {
      const std::int32_t tree = layout_.node_tree[node];
      if (static_cast<std::size_t>(tree) >= plan_->trees.size()) plan_->trees.resize(tree + 1);
      local_[node] = plan_->trees[tree].tokens;
      for (std::int32_t i = layout_.node_start[node]; i < layout_.node_start[node + 1]; ++i) {
        plan_->tree[i] = tree;
        plan_->local[i] = plan_->trees[tree].tokens++;
      }
    }
  }

  // Blocks of adjacent tokens, so that short siblings share the reading of their ancestors' keys.
  void add_blocks(const std::vector<std::int32_t>& nodes) {
    std::int32_t begin = 0, end = 0;
    for (const std::int32_t node : nodes) {
      if (layout_.node_length(node) == 0) continue;
      if (layout_.node_start[node] != end) {
        add_run(nodes, begin, end);
        begin = layout_.node_start[node];
      }
      end = layout_.node_start[node + 1];
    }
    add_run(nodes, begin, end);
  }

  void add_run(const std::vector<std::int32_t>& nodes, std::int32_t begin, std::int32_t end) {
    for (; begin < end; begin += kQueryBlock) add_block(nodes, begin, std::min(kQueryBlock, end - begin));
  }

  void add_block(const std::vector<std::int32_t>& nodes, std::int32_t token, std::int32_t count) {
    QueryBlock block{token, count, static_cast<std::int32_t>(plan_->streams.size()), 0};
    const auto after = std::upper_bound(nodes.begin(), nodes.end(), token, [&](std::int32_t t, std::int32_t node) {
      return t < layout_.node_start[node];
    });
    std::vector<Piece> pieces;
    for (auto node = after - 1; node != nodes.end() && layout_.node_start[*node] < token + count; ++node) {
      const std::int32_t row_begin = std::max(0, layout_.node_start[*node] - token);
      const std::int32_t row_end = std::min(count, layout_.node_start[*node + 1] - token);
      if (row_begin < row_end) pieces.push_back({*node, row_begin, row_end});
    }
    block_token_ = token;
    add_streams(pieces);
    block.streams = static_cast<std::int32_t>(plan_->streams.size()) - block.first_stream;
    plan_->blocks.push_back(block);
  }

  // Every node that some row sees, from the root down, by the ranges of rows that see it.
  void add_streams(const std::vector<Piece>& pieces) {
    std::vector<std::int32_t> nodes;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      for (std::int32_t node = pieces[i].node; node >= 0; node = layout_.node_parent[node]) {
        if (seen_by_[node].empty()) nodes.push_back(node);
        seen_by_[node].push_back(static_cast<std::int32_t>(i));
      }
    }
    std::sort(nodes.begin(), nodes.end());
    pending_.clear();
    for (const std::int32_t node : nodes) {
      const std::vector<std::int32_t>& seen = seen_by_[node];
      for (std::size_t begin = 0, end; begin < seen.size(); begin = end) {
        for (end = begin + 1; end < seen.size() && seen[end] == seen[end - 1] + 1; ++end) continue;
        add_keys(pieces, node, seen[begin], seen[end - 1] + 1);
      }
    }
    for (const std::int32_t node : nodes) seen_by_[node].clear();
    finish_streams(pieces);
  }

  // The node's tokens as keys of the pieces [piece_begin, piece_end): after those of its parent where a stream allows.
  void add_keys(const std::vector<Piece>& pieces, std::int32_t node, std::int32_t piece_begin, std::int32_t piece_end) {
    for (PendingStream& stream : pending_) {
      if (stream.nodes.back() == layout_.node_parent[node] && stream.piece_begin <= piece_begin &&
          piece_end <= stream.piece_end && hidden_from_others(pieces, stream, node, piece_begin, piece_end)) {
        stream.nodes.push_back(node);
        return;
      }
    }
    pending_.push_back({piece_begin, piece_end, {node}});
  }

  // Rows of the stream that do not descend from the node must lie before it: then positions alone hide it from them.
  bool hidden_from_others(const std::vector<Piece>& pieces, const PendingStream& stream, std::int32_t node,
                          std::int32_t piece_begin, std::int32_t piece_end) const {
    for (std::int32_t i = stream.piece_begin; i < stream.piece_end; ++i) {
      if (i >= piece_begin && i < piece_end) continue;
      if (last_position(pieces[i]) >= layout_.node_position[node]) return false;
    }
    return true;
  }

  std::int32_t last_position(const Piece& piece) const {
    // Later rows of the node may be in the next block, but none of them is before the node's children.
    return layout_.node_position[piece.node] + layout_.node_length(piece.node) - 1;
  }

  void finish_streams(const std::vector<Piece>& pieces) {
    for (const PendingStream& pending : pending_) {
      KeyStream stream{};
      stream.first_segment = static_cast<std::int32_t>(plan_->segments.size());
      stream.position = layout_.node_position[pending.nodes.front()];
      stream.row_begin = pieces[pending.piece_begin].row_begin;
      stream.row_end = pieces[pending.piece_end - 1].row_end;
      for (const std::int32_t node : pending.nodes) {
        const std::int32_t length = layout_.node_length(node);
        if (length == 0) continue;
        plan_->segments.push_back({layout_.node_start[node], local_[node], length});
        stream.count += length;
      }
      stream.segments = static_cast<std::int32_t>(plan_->segments.size()) - stream.first_segment;
      // Keys after the last of the rows are nobody's.
      std::int32_t last = 0;
      for (std::int32_t i = pending.piece_begin; i < pending.piece_end; ++i) {
        const Piece& piece = pieces[i];
        last = std::max(last, plan_->position[block_token_ + piece.row_end - 1]);
      }
      stream.count = std::min(stream.count, last - stream.position + 1);
      if (stream.count > 0) plan_->streams.push_back(stream);
    }
  }

  // Pairs of query and key, roughly: window and causality are left out.
  std::int64_t cost_of(std::int32_t first_block, std::int32_t blocks) const {
    std::int64_t cost = 0;
    for (std::int32_t b = first_block; b < first_block + blocks; ++b) {
      const QueryBlock& block = plan_->blocks[b];
      for (std::int32_t s = block.first_stream; s < block.first_stream + block.streams; ++s) {
        const KeyStream& stream = plan_->streams[s];
        cost += static_cast<std::int64_t>(stream.count) * (stream.row_end - stream.row_begin);
      }
    }
    return cost;
  }

  // Divides a tree's blocks into chunks of about the same cost.
  void add_chunks(std::int32_t tree, std::size_t first_block) {
    AttentionTree& info = plan_->trees[tree];
    const auto first = static_cast<std::int32_t>(first_block), end = static_cast<std::int32_t>(plan_->blocks.size());
    if (first == end) return;
    const auto trees = static_cast<std::int32_t>(plan_->trees.size());
    const std::int32_t wanted = std::min((kForestChunks + trees - 1) / trees, info.tokens / kChunkTokens);
    const std::int32_t chunks = std::clamp(wanted, 1, std::min(kTreeChunks, end - first));
    const std::int64_t total = cost_of(first, end - first);
    std::int64_t done = 0;
    for (std::int32_t block = first; block < end;) {
      const std::int32_t left = chunks - info.chunks - 1;
      std::int32_t next = block;
      do {
        done += cost_of(next++, 1);
      } while (next < end - left && (left == 0 || done * chunks < total * (info.chunks + 1)));
      plan_->chunks.push_back({tree, info.chunks++, block, next - block});
      block = next;
    }
  }

  void mark_seen(const GradientChunk& chunk) {
    const AttentionTree& tree = plan_->trees[chunk.tree];
    std::uint8_t* sees = plan_->sees.data() + tree.tokens_before + static_cast<std::int64_t>(tree.tokens) * chunk.index;
    for (std::int32_t b = chunk.first_block; b < chunk.first_block + chunk.blocks; ++b) {
      const QueryBlock& block = plan_->blocks[b];
      for (std::int32_t s = block.first_stream; s < block.first_stream + block.streams; ++s) {
        const KeyStream& stream = plan_->streams[s];
        std::int32_t left = stream.count;
        for (std::int32_t i = stream.first_segment; left > 0; left -= plan_->segments[i++].count) {
          const KeySegment& segment = plan_->segments[i];
          std::fill_n(sees + segment.local, std::min(left, segment.count), std::uint8_t{1});
        }
      }
    }
  }

  const ForestLayout& layout_;
  std::unique_ptr<CpuAttentionPlan> plan_;
  std::vector<std::vector<std::int32_t>> seen_by_;  // [N] pieces of the block at hand, ascending
  std::vector<std::int32_t> local_;                 // [N] a node's first token among those of its tree
  std::int32_t block_token_ = 0;
  std::vector<PendingStream> pending_;
};

}  // namespace

std::unique_ptr<CpuAttentionPlan> make_attention_plan(const ForestLayout& layout) {
  return PlanBuilder(layout).build();
}

}  // namespace tempora
