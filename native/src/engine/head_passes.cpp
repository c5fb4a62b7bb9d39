#include "head_passes.h"

#include <algorithm>

namespace tempora {

HeadPasses::HeadPasses(const ScoredRows& rows, bool twice)
    : rows_(rows),
      twice_(twice),
      row_bytes_(weight().rows * static_cast<std::int64_t>(size_of(rows.parameters.dtype()))),
      budget_(rows.backend.budget()),
      d_weight_(rows.parameters.gradient_sum(rows.parameters.head())) {
  chunks_ = chunks_that_fit(budget_.kept_logits);
  const bool two_at_once = budget_.next_chunk_first && !twice && chunks_.size() > 1;
  if (two_at_once) chunks_ = chunks_that_fit(budget_.kept_logits / 2);
  slots_.push_back(new_slot());
  if (two_at_once) slots_.push_back(new_slot());
}

// Whole trees, as many as fit; at least one.
std::vector<HeadPasses::Chunk> HeadPasses::chunks_that_fit(std::int64_t logits_bytes) const {
  const std::int64_t rows_that_fit = std::max<std::int64_t>(1, logits_bytes / row_bytes_);
  const EdgeList& edges = rows_.edges;
  std::vector<Chunk> chunks;
  const auto rows = static_cast<std::int64_t>(edges.source.size());
  std::int64_t begin = 0;
  while (begin < rows) {
    std::int64_t end = begin;
    while (end < rows) {
      std::int64_t tree_end = end;
      while (tree_end < rows && edges.source_tree[tree_end] == edges.source_tree[end]) ++tree_end;
      if (end > begin && tree_end - begin > rows_that_fit) break;
      end = tree_end;
    }
    chunks.push_back({begin, end});
    begin = end;
  }
  return chunks;
}

HeadPasses::Slot HeadPasses::new_slot() const {
  std::int64_t rows = 0, edges = 0, kept_rows = 0;
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    const auto [first, last] = edges_of_chunk(i);
    rows = std::max(rows, chunks_[i].rows());
    edges = std::max(edges, last - first);
    if (is_kept(chunks_[i])) kept_rows = std::max(kept_rows, chunks_[i].rows());
  }
  Slot slot;
  slot.token = static_cast<std::int32_t*>(rows_.scratch.bytes(static_cast<std::size_t>(edges) * 4));
  slot.row_start = static_cast<std::int32_t*>(rows_.scratch.bytes(static_cast<std::size_t>(rows + 1) * 4));
  if (kept_rows > 0) {
    slot.kept =
        rows_.scratch.bytes(rows_.backend.kept_logits_bytes(kept_rows, weight().rows, rows_.parameters.dtype()));
  }
  slot.log_prob = rows_.scratch.floats(edges);
  slot.coefficient = rows_.scratch.floats(edges);
  return slot;
}

// A tree whose rows need more is computed twice.
bool HeadPasses::is_kept(const Chunk& chunk) const {
  return !twice_ && chunk.rows() * row_bytes_ <= budget_.largest_kept_logits;
}

Matrix HeadPasses::kept_of(std::size_t chunk) {
  if (!is_kept(chunks_[chunk])) return {};
  return {slot_of(chunk).kept, rows_.parameters.dtype(), chunks_[chunk].rows(), weight().rows};
}

std::pair<std::int64_t, std::int64_t> HeadPasses::edges_of_chunk(std::size_t chunk) const {
  return {rows_.edges.row_start[static_cast<std::size_t>(chunks_[chunk].row_begin)],
          rows_.edges.row_start[static_cast<std::size_t>(chunks_[chunk].row_end)]};
}

// The chunk's edges on the device, numbered from 0.
Edges HeadPasses::place(std::size_t chunk) {
  Slot& slot = slot_of(chunk);
  const auto [first, last] = edges_of_chunk(chunk);
  if (slot.chunk != chunk) {
    const Chunk& rows = chunks_[chunk];
    std::vector<std::int32_t> row_start;
    for (std::int64_t r = rows.row_begin; r <= rows.row_end; ++r) {
      row_start.push_back(rows_.edges.row_start[static_cast<std::size_t>(r)] - static_cast<std::int32_t>(first));
    }
    rows_.backend.copy_in(slot.token, rows_.target_token.data() + first, static_cast<std::size_t>(last - first) * 4);
    rows_.backend.copy_in(slot.row_start, row_start.data(), row_start.size() * 4);
    slot.chunk = chunk;
  }
  return {last - first, slot.token, slot.row_start};
}

void HeadPasses::forward(std::size_t chunk) {
  const Chunk& rows = chunks_[chunk];
  rows_.backend.head_forward(rows_.normed.row_range(rows.row_begin, rows.rows()), weight(), place(chunk),
                             slot_of(chunk).log_prob, rows_.lse + rows.row_begin, kept_of(chunk));
}

void HeadPasses::copy_out(std::size_t chunk, std::vector<float>& log_prob) {
  const auto [first, last] = edges_of_chunk(chunk);
  rows_.backend.copy_out(log_prob.data() + first, slot_of(chunk).log_prob, static_cast<std::size_t>(last - first) * 4);
}

void HeadPasses::backward(std::size_t chunk, const std::vector<float>& coefficient) {
  const Chunk& rows = chunks_[chunk];
  const Edges edges = place(chunk);
  const auto [first, last] = edges_of_chunk(chunk);
  float* on_device = slot_of(chunk).coefficient;
  rows_.backend.copy_in(on_device, coefficient.data() + first, static_cast<std::size_t>(last - first) * 4);
  rows_.backend.head_backward(rows_.normed.row_range(rows.row_begin, rows.rows()), weight(), edges, on_device,
                              rows_.lse + rows.row_begin, kept_of(chunk),
                              rows_.d_normed.row_range(rows.row_begin, rows.rows()), d_weight_.matrix,
                              std::exchange(d_weight_.accumulate, true));
}

}  // namespace tempora
