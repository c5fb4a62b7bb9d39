// The log-prob head, a block of rows by a chunk of the vocabulary at a time: the logits of one such tile are all that
// exists at once.
//
// Logits that are kept in bf16's place are kept as log-probs, in the 16 bits that kernels/head.h tells of: a likely
// token's log-prob is nearly exact, where its logit would be off by a part in 2000 of itself. Until a row's log-sum-exp
// is known, they count from the largest logit that the row has had so far.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu_backend.h"
#include "kernels/head.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

// Rows and columns of a tile. Forward: 2 MiB of f32 logits at most, half of it in each core's L2 when its epilogue
// comes. Backward: wider, as the products with the gradients sum over a tile's columns.
constexpr std::int64_t kTileRows = 1024;
constexpr std::int64_t kForwardColumns = 512;
constexpr std::int64_t kBackwardColumns = 1024;

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

void CpuBackend::head_forward(const Matrix& hidden, const Weight& head, const Edges& edges, float* log_prob, float* lse,
                              const Matrix& keep) {
  require_dense("head_forward", {hidden, keep});
  const Matrix weight = head.values();
  require_head(hidden, weight, keep);
  const HeadKernels& kernels = head_kernels_for(isa_);
  const std::int64_t rows = hidden.rows, vocab = weight.rows;
  const bool keep_f32 = keep.data != nullptr && keep.dtype == DType::f32;
  const bool keep_bf16 = keep.data != nullptr && keep.dtype == DType::bf16;
  const Buffer tile_buffer = workspace(keep_f32 ? 0 : tile_elements(rows, kForwardColumns) * sizeof(float));
  std::vector<float> largest(static_cast<std::size_t>(rows), -std::numeric_limits<float>::infinity());
  const std::int64_t chunks = (vocab + kForwardColumns - 1) / kForwardColumns;
  std::vector<float> counted_from(static_cast<std::size_t>(keep_bf16 ? rows * chunks : 0));
  std::vector<double> exp_sum(static_cast<std::size_t>(rows));

  for_logit_tiles(rows, vocab, kForwardColumns, [&](const Tile& tile) {
    // f32 logits that are kept are computed where they stay.
    const std::int64_t stride = keep_f32 ? vocab : tile.columns();
    float* logits =
        keep_f32 ? keep.f32() + tile.row_begin * vocab + tile.column_begin : static_cast<float*>(tile_buffer.data());
    multiply(logits_product(hidden, tile, stride), element(hidden, tile.row_begin * hidden.cols),
             element(weight, tile.column_begin * weight.cols), logits);
    parallel_ranges(threads_, tile.rows(), row_grain(tile.columns()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t r = tile.row_begin + i;
        const float* row = logits + i * stride;
        kernels.add_to_log_sum(row, tile.columns(), &largest[r], &exp_sum[r]);
        if (keep_bf16) {
          counted_from[r * chunks + tile.column_begin / kForwardColumns] = largest[r];
          kernels.keep(row, largest[r], static_cast<std::uint16_t*>(keep.data) + r * vocab + tile.column_begin,
                       tile.columns());
        }
        for (std::int32_t e = edges.row_start[r]; e < edges.row_start[r + 1]; ++e) {
          const std::int64_t column = edges.token[e] - tile.column_begin;
          if (column >= 0 && column < tile.columns()) log_prob[e] = row[column];
        }
      }
    });
  });
  for (std::int64_t r = 0; r < rows; ++r) {
    const double log_sum = largest[r] + std::log(exp_sum[r]);
    lse[r] = static_cast<float>(log_sum);
    for (std::int32_t e = edges.row_start[r]; e < edges.row_start[r + 1]; ++e) {
      log_prob[e] = static_cast<float>(log_prob[e] - log_sum);
    }
  }
  if (!keep_bf16) return;
  parallel_ranges(threads_, rows, row_grain(vocab), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t v = 0; v < vocab; v += kForwardColumns) {
        kernels.shift(static_cast<std::uint16_t*>(keep.data) + r * vocab + v,
                      counted_from[r * chunks + v / kForwardColumns] - lse[r], std::min(kForwardColumns, vocab - v));
      }
    }
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
  const bool again = kept.data == nullptr;
  const bool kept_log_probs = !again && kept.dtype == DType::bf16;
  const Buffer logits_buffer = workspace(again ? tile_elements(rows, kBackwardColumns) * sizeof(float) : 0);
  const Buffer gradient_buffer = workspace(tile_elements(rows, kBackwardColumns) * size_of(hidden.dtype));
  const RowGradient row_gradient{kernels, edges, coefficient, again ? DType::f32 : kept.dtype, hidden.dtype};

  for_logit_tiles(rows, vocab, kBackwardColumns, [&](const Tile& tile) {
    const void* weight_rows = element(weight, tile.column_begin * cols);
    const void* hidden_rows = element(hidden, tile.row_begin * cols);
    if (again) {
      multiply(logits_product(hidden, tile, tile.columns()), hidden_rows, weight_rows, logits_buffer.data());
    }
    parallel_ranges(threads_, tile.rows(), row_grain(tile.columns()), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t r = tile.row_begin + i;
        const void* logits = again ? element(logits_buffer.data(), DType::f32, i * tile.columns())
                                   : element(kept, r * vocab + tile.column_begin);
        row_gradient(r, logits, kept_log_probs ? 0 : lse[r], tile,
                     static_cast<char*>(gradient_buffer.data()) +
                         static_cast<std::size_t>(i * tile.columns()) * size_of(hidden.dtype));
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
