// The log-prob head, a block of rows by a chunk of the vocabulary at a time: the logits of one such tile are all that
// exists at once.
//
// Logits that are kept in bf16's place are kept as log-probs, in the 16 bits that kernels/head.h tells of: a likely
// token's log-prob is nearly exact, where its logit would be off by a part in 2000 of itself. As a row's log-sum-exp is
// not known yet, they count from the largest logit of some columns of the row, which is kept behind them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu_backend.h"
#include "kernels/head.h"
#include "pair_product.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

// Rows and columns of a tile. Forward: 2 MiB of f32 logits at most, half of it in each core's L2 when its epilogue
// comes. Backward: wider, as the products with the gradients sum over a tile's columns.
constexpr std::int64_t kTileRows = 1024;
constexpr std::int64_t kForwardColumns = 512;
constexpr std::int64_t kBackwardColumns = 1024;
// Of products of pairs: what they lay out is theirs alone, and so is laid out a quarter as often.
constexpr std::int64_t kPairBackwardColumns = 4096;

// Where each thread computes tiles of its own: columns that are laid out at once, and rows whose logits stay in its
// second cache beside them.
constexpr std::int64_t kPairColumns = 256;
constexpr std::int64_t kPairRows = 128;

// Columns that have one reference where log-probs are kept.
constexpr std::int64_t kKeptColumns = 256;
static_assert(kPairColumns == kKeptColumns && kForwardColumns % kKeptColumns == 0);
static_assert(kBackwardColumns % kKeptColumns == 0 && kPairBackwardColumns % kKeptColumns == 0);

struct Tile {
  std::int64_t row_begin, row_end, column_begin, column_end;
  std::int64_t rows() const { return row_end - row_begin; }
  std::int64_t columns() const { return column_end - column_begin; }
};

template <typename Body>
void for_logit_tiles(std::int64_t rows, std::int64_t vocab, std::int64_t columns, const Body& body) {
  for (std::int64_t r = 0; r < rows; r += kTileRows) {
    for (std::int64_t v = 0; v < vocab; v += columns) {
      body(Tile{r, std::min(rows, r + kTileRows), v, std::min(vocab, v + columns)});
    }
  }
}

std::size_t tile_elements(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(std::min(rows, kTileRows) * columns);
}

std::int64_t codes_bytes(std::int64_t rows, std::int64_t vocab) { return (rows * vocab * 2 + 63) / 64 * 64; }

}  // namespace

// Kept log-probs of some rows: codes [rows, vocab], and what they count from, [rows, groups of kKeptColumns].
struct KeptLogProbs {
  std::uint16_t* codes = nullptr;  // null: none are kept
  float* references = nullptr;
  std::int64_t vocab = 0, groups = 0;

  KeptLogProbs() = default;
  explicit KeptLogProbs(const Matrix& kept) : vocab(kept.cols), groups((kept.cols + kKeptColumns - 1) / kKeptColumns) {
    if (kept.data == nullptr || kept.dtype == DType::f32) return;
    codes = static_cast<std::uint16_t*>(kept.data);
    references = reinterpret_cast<float*>(static_cast<char*>(kept.data) + codes_bytes(kept.rows, vocab));
  }

  KeptLogProbs from_row(std::int64_t row) const {
    KeptLogProbs rest = *this;
    if (codes == nullptr) return rest;
    rest.codes += row * vocab;
    rest.references += row * groups;
    return rest;
  }
  std::uint16_t* at(std::int64_t row, std::int64_t column) const { return codes + row * vocab + column; }
  float& reference(std::int64_t row, std::int64_t column) const {
    return references[row * groups + column / kKeptColumns];
  }
};

namespace {

// logits f32 [rows of the tile, columns of the tile] = hidden · weightᵀ
Product logits_product(const Matrix& hidden, const Tile& tile, std::int64_t row_c) {
  Product p;
  p.m = tile.rows();
  p.n = tile.columns();
  p.k = hidden.cols;
  p.row_a = p.row_b = hidden.cols;
  p.row_c = row_c;
  p.in = hidden.dtype;
  p.transpose_b = true;
  return p;
}

void require_head(const Matrix& hidden, const Matrix& weight, const Matrix& logits) {
  require(hidden.dtype == weight.dtype && hidden.cols == weight.cols && hidden.dense(),
          "head: hidden and weight fit each other");
  require(logits.data == nullptr || (logits.rows == hidden.rows && logits.cols == weight.rows),
          "head: kept logits have a row a hidden state and a column a token");
}

}  // namespace

namespace {

// The head's forward pass over logits that come a tile at a time, each row's part of a chunk of columns by itself: what
// it finds depends on nothing else, so tiles may come in any order, from several threads.
class LogSums {
 public:
  LogSums(const HeadKernels& kernels, const Edges& edges, std::int64_t rows, std::int64_t vocab,
          std::int64_t chunk_columns, float* log_prob, const KeptLogProbs& keep)
      : kernels_(kernels),
        edges_(edges),
        chunk_columns_(chunk_columns),
        chunks_((vocab + chunk_columns - 1) / chunk_columns),
        log_prob_(log_prob),
        kept_(keep),
        largest_(static_cast<std::size_t>(rows * chunks_)),
        exp_sum_(static_cast<std::size_t>(rows * chunks_)) {}

  // `row`'s logits of the chunk that begins at `column`.
  void take(std::int64_t row, std::int64_t column, std::int64_t columns, const float* logits) {
    const auto at = static_cast<std::size_t>(row * chunks_ + column / chunk_columns_);
    float largest = -std::numeric_limits<float>::infinity();
    double sum = 0;
    kernels_.add_to_log_sum(logits, columns, &largest, &sum);
    largest_[at] = largest;
    exp_sum_[at] = sum;
    if (kept_.codes != nullptr) {
      kernels_.keep(logits, largest, kept_.at(row, column), columns);
      for (std::int64_t i = 0; i < columns; i += kKeptColumns) kept_.reference(row, column + i) = largest;
    }
    for (std::int32_t e = edges_.row_start[row]; e < edges_.row_start[row + 1]; ++e) {
      const std::int64_t own = edges_.token[e] - column;
      if (own >= 0 && own < columns) log_prob_[e] = logits[own];
    }
  }

  // Once all chunks of the row are there.
  void finish(std::int64_t row, float* lse) const {
    const float* largest = largest_.data() + row * chunks_;
    const float most = *std::max_element(largest, largest + chunks_);
    double sum = 0;
    for (std::int64_t i = 0; i < chunks_; ++i) {
      const double part = exp_sum_[static_cast<std::size_t>(row * chunks_ + i)];
      // All -infinity: exp(largest - most) may be NaN.
      if (part != 0) sum += part * std::exp(static_cast<double>(largest[i]) - static_cast<double>(most));
    }
    const double log_sum = static_cast<double>(most) + std::log(sum);
    lse[row] = static_cast<float>(log_sum);
    for (std::int32_t e = edges_.row_start[row]; e < edges_.row_start[row + 1]; ++e) {
      log_prob_[e] = static_cast<float>(log_prob_[e] - log_sum);
    }
  }

 private:
  const HeadKernels& kernels_;
  const Edges& edges_;
  std::int64_t chunk_columns_, chunks_;
  float* log_prob_;
  KeptLogProbs kept_;
  std::vector<float> largest_;   // [rows, chunks]
  std::vector<double> exp_sum_;  // of exp(logit - largest)
};

}  // namespace

std::size_t CpuBackend::kept_logits_bytes(std::int64_t rows, std::int64_t vocabulary, DType dtype) const {
  if (dtype == DType::f32) return Backend::kept_logits_bytes(rows, vocabulary, dtype);
  const std::int64_t groups = (vocabulary + kKeptColumns - 1) / kKeptColumns;
  return static_cast<std::size_t>(codes_bytes(rows, vocabulary) + rows * groups * 4);
}

void CpuBackend::head_forward(const Matrix& hidden, const Weight& head, const Edges& edges, float* log_prob, float* lse,
                              const Matrix& keep) {
  require_dense("head_forward", {hidden, keep});
  const Matrix weight = head.values();
  require_head(hidden, weight, keep);
  const KeptLogProbs kept(keep);
  for (std::int64_t row = 0; row < hidden.rows; row += kTileRows) {
    const std::int64_t rows = std::min(kTileRows, hidden.rows - row);
    const Edges own{edges.count, edges.token, edges.row_start + row};
    // f32 logits that are kept are computed where they stay.
    float* logits = keep.data != nullptr && keep.dtype == DType::f32 ? keep.f32() + row * weight.rows : nullptr;
    head_rows(hidden.row_range(row, rows), weight, own, log_prob, lse + row, kept.from_row(row), logits);
  }
}

// The same for at most kTileRows rows. logits: where those of f32 are kept, or null.
void CpuBackend::head_rows(const Matrix& hidden, const Matrix& weight, const Edges& edges, float* log_prob, float* lse,
                           const KeptLogProbs& keep, float* kept_logits) {
  const HeadKernels& kernels = head_kernels_for(isa_);
  const std::int64_t rows = hidden.rows, vocab = weight.rows;
  const bool pairs = multiplies_pairs(*this, hidden, weight);
  LogSums sums(kernels, edges, rows, vocab, pairs ? kPairColumns : kForwardColumns, log_prob, keep);
  if (pairs) {
    for_pair_tiles(*this, hidden, weight, kPairRows, kPairColumns, [&](const PairTile& tile) {
      for (std::int64_t i = 0; i < tile.rows; ++i) {
        sums.take(tile.row + i, tile.column, tile.columns, tile.data + i * tile.columns);
      }
    });
  } else {
    const bool in_place = kept_logits != nullptr;
    const Buffer buffer = workspace(in_place ? 0 : tile_elements(rows, kForwardColumns) * sizeof(float));
    for_logit_tiles(rows, vocab, kForwardColumns, [&](const Tile& tile) {
      const std::int64_t stride = in_place ? vocab : tile.columns();
      float* logits = in_place ? kept_logits + tile.column_begin : static_cast<float*>(buffer.data());
      multiply(logits_product(hidden, tile, stride), hidden.data, element(weight, tile.column_begin * weight.cols),
               logits);
      parallel_ranges(threads_, rows, row_grain(tile.columns()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          sums.take(r, tile.column_begin, tile.columns(), logits + r * stride);
        }
      });
    });
  }
  parallel_ranges(threads_, rows, row_grain(vocab), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) sums.finish(r, lse);
  });
}

namespace {

// The gradient of one row of logits: d_logits[v] = Σ_edges coefficient · (1[v is the edge's token] - p[v]).
struct RowGradient {
  const HeadKernels& kernels;
  const Edges& edges;
  const float* coefficient;
  DType in, out;

  void operator()(std::int64_t row, const void* logits, float log_sum, const Tile& tile, void* d_logits) const {
    const std::int32_t first = edges.row_start[row], last = edges.row_start[row + 1];
    float total = 0;
    for (std::int32_t e = first; e < last; ++e) total += coefficient[e];
    kernels.scaled_exp[index_of(in)][index_of(out)](logits, log_sum, -total, d_logits, tile.columns());
    for (std::int32_t e = first; e < last; ++e) {
      const std::int64_t column = edges.token[e] - tile.column_begin;
      if (column < 0 || column >= tile.columns()) continue;
      // Rounded once: 1 - p may be small. Siblings may begin with the same token.
      float own = 0;
      for (std::int32_t other = first; other < last; ++other) {
        if (edges.token[other] == edges.token[e]) own += coefficient[other];
      }
      write(d_logits, column, own - total * std::exp(read(logits, column) - log_sum));
    }
  }

  // Of log-probs that are kept.
  void of_kept(std::int64_t row, const KeptLogProbs& kept, float lse, const Tile& tile, char* d_logits) const {
    for (std::int64_t column = tile.column_begin; column < tile.column_end; column += kKeptColumns) {
      const Tile part{tile.row_begin, tile.row_end, column, std::min(tile.column_end, column + kKeptColumns)};
      (*this)(row, kept.at(row, column), lse - kept.reference(row, column), part, d_logits);
      d_logits += static_cast<std::size_t>(part.columns()) * size_of(out);
    }
  }

 private:
  float read(const void* from, std::int64_t index) const {
    if (in == DType::f32) return static_cast<const float*>(from)[index];
    const std::uint32_t code = static_cast<const std::uint16_t*>(from)[index];
    if (code == kKeptNan) return std::numeric_limits<float>::quiet_NaN();
    const std::uint32_t bits = (code << kKeptShift) + kKeptBias;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return -value;
  }

  void write(void* to, std::int64_t index, float value) const {
    if (out == DType::f32) {
      static_cast<float*>(to)[index] = value;
    } else {
      kernels.round(&value, static_cast<std::uint16_t*>(to) + index, 1);
    }
  }
};

}  // namespace

void CpuBackend::head_backward(const Matrix& hidden, const Weight& head, const Edges& edges, const float* coefficient,
                               const float* lse, const Matrix& kept, const Matrix& d_hidden, const Matrix& d_weight,
                               bool accumulate) {
  require_dense("head_backward", {hidden, kept, d_hidden, d_weight});
  const Matrix weight = head.values();
  require_head(hidden, weight, kept);
  require(d_hidden.dtype == DType::f32 && (d_weight.data == nullptr || d_weight.dtype == DType::f32),
          "head_backward: the gradients are f32");
  const HeadKernels& kernels = head_kernels_for(isa_);
  const std::int64_t rows = hidden.rows, vocab = weight.rows, cols = hidden.cols;
  const std::int64_t columns = multiplies_pairs(*this, hidden, weight) ? kPairBackwardColumns : kBackwardColumns;
  const bool again = kept.data == nullptr;
  const KeptLogProbs log_probs(kept);
  const Buffer logits_buffer = workspace(again ? tile_elements(rows, columns) * sizeof(float) : 0);
  const Buffer gradient_buffer = workspace(tile_elements(rows, columns) * size_of(hidden.dtype));
  const RowGradient row_gradient{kernels, edges, coefficient, again ? DType::f32 : kept.dtype, hidden.dtype};

  for_logit_tiles(rows, vocab, columns, [&](const Tile& tile) {
    const void* weight_rows = element(weight, tile.column_begin * cols);
    const void* hidden_rows = element(hidden, tile.row_begin * cols);
    if (again) {
      multiply(logits_product(hidden, tile, tile.columns()), hidden_rows, weight_rows, logits_buffer.data());
    }
    parallel_ranges(threads_, tile.rows(), row_grain(tile.columns()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t r = tile.row_begin + i;
        char* d_logits = static_cast<char*>(gradient_buffer.data()) +
                         static_cast<std::size_t>(i * tile.columns()) * size_of(hidden.dtype);
        if (log_probs.codes != nullptr) {
          row_gradient.of_kept(r, log_probs, lse[r], tile, d_logits);
          continue;
        }
        row_gradient(r,
                     again ? element(logits_buffer.data(), DType::f32, i * tile.columns())
                           : element(kept, r * vocab + tile.column_begin),
                     lse[r], tile, d_logits);
      }
    });
    Product to_hidden;
    to_hidden.m = tile.rows();
    to_hidden.n = cols;
    to_hidden.k = tile.columns();
    to_hidden.row_a = tile.columns();
    to_hidden.row_b = to_hidden.row_c = cols;
    to_hidden.in = hidden.dtype;
    to_hidden.accumulate = tile.column_begin > 0;
    multiply(to_hidden, gradient_buffer.data(), weight_rows, d_hidden.f32() + tile.row_begin * cols);
    if (d_weight.data == nullptr) return;
    Product to_weight = to_hidden;
    to_weight.m = tile.columns();
    to_weight.k = tile.rows();
    to_weight.transpose_a = true;
    to_weight.accumulate = accumulate || tile.row_begin > 0;
    multiply(to_weight, gradient_buffer.data(), hidden_rows, d_weight.f32() + tile.column_begin * cols);
  });
}

}  // namespace tempora
