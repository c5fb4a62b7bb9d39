// Products of large bf16 matrices, two of k at a time: as a pair of bf16 in one word, for dot products (vdpbf16ps), or
// as two numbers of f32, for multiply-adds. Training's weights change with every step, so what has to be laid out is
// laid out within the product, into caches.
#pragma once

#include "byte_rows.h"
#include "kernels.h"

namespace tempora {

// Rows of a left operand: as they are in a matrix of bf16, `row` bytes apart, or as pair_blocks writes them (row 0).
struct PairRows {
  const void* data = nullptr;
  std::int64_t row = 0;
  std::int64_t pairs = 0;
};

constexpr std::size_t kMostPairTerms = 3;

// f32 rows [rows, rank], `row` numbers apart, times right [rank, columns]: of each panel so many columns lie together,
// `panel` and `step` numbers from one panel and from one row to the next.
struct NarrowRows {
  const float* rows = nullptr;
  std::int64_t row = 0;
  std::int64_t rank = 0;
  const float* right = nullptr;
  std::int64_t panel = 0, step = 0;
};

// out [rows, columns] = added + the sum over `terms` of left · right.
struct PairProduct {
  PairRows left[kMostPairTerms];
  int terms = 1;
  NarrowRows narrow[kMostPairTerms];  // added as well
  int narrow_terms = 0;
  std::int64_t rows = 0;
  const void* panels = nullptr;  // of the right operands: [panel][all terms' pairs] as laid out
  std::int64_t columns = 0;
  void* out = nullptr;
  std::int64_t row_out = 0;  // elements
  bool out_bf16 = false;
  const void* added = nullptr;  // as out is; may be out, or null
  std::int64_t row_added = 0;
  // Unless it is null, of f32 and a left operand from pair_blocks: of each block of rows and each panel the sum of its
  // results' squares, [blocks, row].
  double* squares = nullptr;
  std::int64_t row_squares = 0;
  // What is brought into the second cache meanwhile.
  ByteRows ahead[2];
  void* scratch = nullptr;  // scratch_bytes(all terms' pairs); of a left operand from pair_blocks none
};

struct PairProductKernels {
  int panel_columns;                                  // 0: these instructions have no such products
  int block_rows;                                     // rows of a left operand that are multiplied at once
  int pair_bytes;                                     // what a column of a panel and a row of a block take of a pair
  std::int64_t (*scratch_bytes)(std::int64_t pairs);  // what a product over so many takes beside
  // Of a matrix whose rows are k: rows 2i and 2i + 1 of `columns` columns as pairs, one panel. Of an odd k the last
  // pair's second half is zeros, as are the columns that the panel has more.
  void (*pair_rows)(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to);
  // The same for the rows of a left operand: blocks of block_rows columns, [block][pairs].
  void (*pair_blocks)(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to);
  // Of a matrix whose columns are k, even: `columns` of its rows as one panel.
  void (*pair_columns)(const void* from, std::int64_t row, std::int64_t k, std::int64_t columns, void* to);
  void (*multiply)(const PairProduct& product);
};

TEMPORA_DECLARE_KERNELS(PairProductKernels, pair_product_kernels)

}  // namespace tempora
