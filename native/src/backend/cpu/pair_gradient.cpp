#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/pair_product.h"
#include "pair_parts.h"
#include "pair_product.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

// Rows of a transposed operand that are laid out together: so many, or what a part of the second cache holds of them,
// if each thread then has some such chunks.
constexpr std::int64_t kChunkRows = 96;
constexpr std::int64_t kChunkBytes = 300 << 10;
constexpr std::int64_t kLeastChunks = 4;
// Panels of inputs that a thread takes at once: of a whole chunk some 0.3 ms.
constexpr std::int64_t kPanelsAtOnce = 12;
// Panels beside which the next chunk's d_out is asked for: what came earlier would have left the second cache again.
constexpr std::int64_t kLatePanels = 4;
// Below this, squares of f32 may have lost what they add up.
constexpr double kLeastSquares = 1e-24;

// Rows of one gradient, whose d_out is laid out together.
struct Chunk {
  const PairGradient* gradient;
  std::size_t index;  // of the gradient
  std::int64_t row, rows;
};

// A multiple of kChunkRows.
std::int64_t rows_of_chunk(const std::vector<PairGradient>& gradients, std::int64_t row_bytes, std::int64_t threads) {
  std::int64_t rows = 0;
  for (const PairGradient& gradient : gradients) rows += gradient.out.rows;
  const std::int64_t most = std::min(kChunkBytes / row_bytes, rows / (kLeastChunks * threads));
  return std::max<std::int64_t>(1, most / kChunkRows) * kChunkRows;
}

// Whole blocks, but for a gradient's last rows.
std::vector<Chunk> chunks_of(const std::vector<PairGradient>& gradients, std::int64_t threads, std::int64_t block,
                             std::int64_t most) {
  std::vector<Chunk> chunks;
  for (std::size_t index = 0; index < gradients.size(); ++index) {
    const std::int64_t rows = gradients[index].out.rows, blocks = groups(rows, block);
    std::int64_t count = groups(rows, most);
    if (gradients.size() == 1) count = std::min(blocks, groups(count, threads) * threads);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t begin = blocks * i / count * block;
      chunks.push_back({&gradients[index], index, begin, std::min(rows, blocks * (i + 1) / count * block) - begin});
    }
  }
  return chunks;
}

// Over some of the tokens: x is laid out once, by all threads; then each lays out some rows of d_outᵀ at a time.
class GradientPass {
 public:
  GradientPass(CpuBackend& backend, const Matrix& x, std::int64_t token, bool first, bool last)
      : backend_(backend),
        kernels_(pair_product_kernels_for(backend.isa())),
        x_(x),
        token_(token),
        first_(first),
        last_(last),
        pairs_(groups(x.rows, 2)),
        panels_(groups(x.cols, kernels_.panel_columns)),
        panel_bytes_(pairs_ * kernels_.panel_columns * kernels_.pair_bytes) {}

  void add(const std::vector<PairGradient>& gradients) {
    laid_out_ = backend_.workspace(static_cast<std::size_t>(panels_ * panel_bytes_));
    const std::int64_t most = rows_of_chunk(gradients, pairs_ * kernels_.pair_bytes, backend_.threads());
    const std::int64_t chunk_bytes =
        groups(most, kernels_.block_rows) * kernels_.block_rows * pairs_ * kernels_.pair_bytes;
    const Buffer scratch = backend_.workspace(static_cast<std::size_t>(chunk_bytes * backend_.threads()));
    on_all_threads(backend_.threads(), [&](std::int64_t thread, std::int64_t threads) {
      for (std::int64_t i = panels_ * thread / threads; i < panels_ * (thread + 1) / threads; ++i) {
        const std::int64_t first = i * kernels_.panel_columns;
        kernels_.pair_rows(element(x_, first), x_.row_stride(), x_.rows,
                           std::min<std::int64_t>(kernels_.panel_columns, x_.cols - first), panel(i));
      }
    });
    squares_.clear();
    for (const PairGradient& gradient : gradients) {
      const bool wanted = last_ && gradient.squares != nullptr;
      squares_.emplace_back(wanted ? groups(gradient.out.rows, kernels_.block_rows) * panels_ : 0);
    }
    const std::vector<Chunk> chunks = chunks_of(gradients, backend_.threads(), kernels_.block_rows, most);
    const auto count = static_cast<std::int64_t>(chunks.size());
    std::int64_t parts = groups(panels_, kPanelsAtOnce);
    while (uneven(count * parts, backend_.threads()) && parts < panels_) ++parts;
    std::vector<const Chunk*> laid_out(static_cast<std::size_t>(backend_.threads()));
    parallel_kept_items(backend_.threads(), count * parts, [&](std::int64_t item, std::int64_t thread) {
      char* own = static_cast<char*>(scratch.data()) + thread * chunk_bytes;
      const Chunk& chunk = chunks[static_cast<std::size_t>(item / parts)];
      if (const Chunk*& last = laid_out[static_cast<std::size_t>(thread)]; last != &chunk) {
        const Matrix d_out = d_out_of(chunk);
        kernels_.pair_blocks(d_out.data, d_out.row_stride(), d_out.rows, d_out.cols, own);
        last = &chunk;
      }
      // The next one is this thread's, if it is in the range that the thread began with.
      const std::int64_t next = item / parts + 1, begin = count * parts * thread / backend_.threads();
      const bool follows = item >= begin && next * parts < count * parts * (thread + 1) / backend_.threads();
      multiply(chunk, item % parts, parts, follows ? &chunk + 1 : nullptr, own);
    });
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      const double sum = std::accumulate(squares_[i].begin(), squares_[i].end(), 0.0);
      // Each was squared in f32: where that was too large or too small, it is not known.
      if (!squares_[i].empty() && std::isfinite(sum) && sum > kLeastSquares) *gradients[i].squares = sum;
    }
  }

 private:
  char* panel(std::int64_t i) const { return static_cast<char*>(laid_out_.data()) + i * panel_bytes_; }

  Matrix d_out_of(const Chunk& chunk) const {
    return chunk.gradient->d_out.row_range(token_, x_.rows).column_range(chunk.row, chunk.rows);
  }

  void multiply(const Chunk& chunk, std::int64_t part, std::int64_t parts, const Chunk* next, const char* own) {
    const Matrix& out = chunk.gradient->out;
    const std::int64_t begin = panels_ * part / parts, end = panels_ * (part + 1) / parts;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i * kernels_.panel_columns;
      PairProduct product;
      product.left[0] = {own, 0, pairs_};
      product.rows = chunk.rows;
      product.panels = panel(i);
      product.columns = std::min<std::int64_t>(kernels_.panel_columns, x_.cols - first);
      product.out = element(out, chunk.row * out.row_stride() + first);
      product.row_out = out.row_stride();
      if (chunk.gradient->accumulate || !first_) product.added = product.out;
      product.row_added = product.row_out;
      if (std::vector<double>& squares = squares_[chunk.index]; !squares.empty()) {
        product.squares = squares.data() + chunk.row / kernels_.block_rows * panels_ + i;
        product.row_squares = panels_;
      }
      if (i + 1 < panels_) product.ahead[1] = {panel(i + 1), 1, panel_bytes_, panel_bytes_};
      if (next != nullptr) {
        const Matrix following = d_out_of(*next);
        const ByteRows rows{following.data, following.rows, following.row_stride() * 2, following.cols * 2};
        product.ahead[0] = late_part_of(rows, i, panels_, kLatePanels);
      }
      kernels_.multiply(product);
    }
  }

  CpuBackend& backend_;
  const PairProductKernels& kernels_;
  const Matrix x_;
  std::int64_t token_;
  bool first_, last_;
  std::int64_t pairs_, panels_, panel_bytes_;
  Buffer laid_out_;
  std::vector<std::vector<double>> squares_;  // of each gradient, where they are wanted: [blocks of rows, panels]
};

}  // namespace

bool add_pair_gradients(CpuBackend& backend, const Matrix& x, const std::vector<PairGradient>& gradients) {
  if (!multiplies_pairs_of(backend.isa(), x.dtype) || !is_large(x)) return false;
  for (const PairGradient& gradient : gradients) {
    if (!is_large(gradient.d_out) || gradient.out.dtype != DType::f32) return false;
  }
  const std::int64_t pairs = groups(x.rows, 2), count = groups(pairs, kMostPairs);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = 2 * (pairs * i / count), end = std::min(x.rows, 2 * (pairs * (i + 1) / count));
    GradientPass(backend, x.row_range(begin, end - begin), begin, i == 0, i + 1 == count).add(gradients);
  }
  return true;
}

}  // namespace tempora
