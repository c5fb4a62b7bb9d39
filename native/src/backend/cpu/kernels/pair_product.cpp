#include "pair_product.h"

#if defined(__AVX2__) && !defined(TEMPORA_TILES)

#include "ahead.h"
#if defined(__AVX512BF16__)
#include "pair_dot.h"
#else
#include "pair_wide.h"
#endif

namespace tempora::TEMPORA_ISA {
namespace {

constexpr std::int64_t kPanelPairBytes = kPanelColumns * kPairBytes;

// Bytes of a panel that are asked for ahead: it streams from the second cache.
constexpr std::int64_t kPanelAhead = 2048;

// Pairs that are multiplied between two looks at what else is to be brought: a cache line of a row of bf16.
constexpr std::int64_t kPairsAtOnce = 16;

// A null pointer has no rows to step through, though they are not read.
inline const void* added_of(const PairProduct& p) { return p.added != nullptr ? p.added : p.out; }

// Inlined, as the next: sums whose address is taken leave the registers.
template <int kRows>
[[gnu::always_inline]] inline void write_bf16(const PairProduct& p, std::int64_t row, std::int64_t column,
                                              const VecF (&sums)[kRows][kPanelVectors]) {
  Bf16* out = static_cast<Bf16*>(p.out) + row * p.row_out + column;
  const Bf16* added = static_cast<const Bf16*>(added_of(p)) + row * p.row_added + column;
  const FirstLanes lanes[] = {FirstLanes(p.columns - column), FirstLanes(p.columns - column - kWidth)};
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += p.row_out, added += p.row_added) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      VecF sum = sums[r][v];
      if (p.added != nullptr) sum += lanes[v].load(added + kWidth * v);
      lanes[v].store(out + kWidth * v, sum);
    }
  }
}

// sums += the narrow terms.
template <int kRows>
[[gnu::always_inline]] inline void add_narrow(const PairProduct& p, std::int64_t row, std::int64_t panel,
                                              VecF (&sums)[kRows][kPanelVectors]) {
  const std::int64_t column = panel * kPanelColumns;
  const FirstLanes lanes[] = {FirstLanes(p.columns - column), FirstLanes(p.columns - column - kWidth)};
  for (int term = 0; term < p.narrow_terms; ++term) {
    const NarrowRows& narrow = p.narrow[term];
    const RowOffsets offset(4 * narrow.row);
    const char* left = reinterpret_cast<const char*>(narrow.rows + row * narrow.row);
    const float* right = narrow.right + panel * narrow.panel;
    for (std::int64_t k = 0; k < narrow.rank; ++k, left += 4, right += narrow.step) {
      const VecF first = lanes[0].load(right), second = lanes[1].load(right + kWidth);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        float one;
        __builtin_memcpy(&one, offset.row(left, r), sizeof one);
        const VecF value = splat(one);
        sums[r][0] += value * first;
        sums[r][1] += value * second;
      }
    }
  }
}

// Returns the squares of what was written, added up over the block's rows.
template <int kRows>
[[gnu::always_inline]] inline VecF write_f32(const PairProduct& p, std::int64_t row, std::int64_t column,
                                             const VecF (&sums)[kRows][kPanelVectors]) {
  float* out = static_cast<float*>(p.out) + row * p.row_out + column;
  const float* added = static_cast<const float*>(added_of(p)) + row * p.row_added + column;
  const FirstLanes lanes[] = {FirstLanes(p.columns - column), FirstLanes(p.columns - column - kWidth)};
  VecF squares[kPanelVectors] = {};
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += p.row_out, added += p.row_added) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      VecF sum = sums[r][v];
      if (p.added != nullptr) sum += lanes[v].load(added + kWidth * v);
      lanes[v].store(out + kWidth * v, sum);
      squares[v] += sum * sum;
    }
  }
  return squares[0] + squares[1];
}

// Of many such vectors the sum is wanted in f64.
inline double sum_of(VecF x) {
  double total = 0;
  for (int i = 0; i < kWidth; ++i) total += static_cast<double>(x[i]);
  return total;
}

// Where the block is written and what is added to it, brought before they are wanted.
template <int kRows, bool kWritten>
inline void prefetch_block(const void* data, std::int64_t row_elements, std::int64_t first, std::int64_t size) {
  const char* line = static_cast<const char*>(data) + first * size;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, line += row_elements * size) {
    __builtin_prefetch(line, kWritten ? 1 : 0);
    if (size * kPanelColumns > kCacheLine) __builtin_prefetch(line + kCacheLine, kWritten ? 1 : 0);
  }
}

// What is brought while a block is multiplied: the next block's rows, what the caller asks for, and of f32 where the
// next block is written.
struct Meanwhile {
  Ahead next, ahead[2], out;
};

// The rows of a block, of each term.
struct BlockRows {
  PairRows terms[kMostPairTerms];
};

// kRows rows by one panel. kBlocks: rows of the left operand are as pair_blocks writes them.
template <int kRows, bool kBlocks>
void block(const PairProduct& p, const BlockRows& block_rows, std::int64_t row, std::int64_t panel, std::int64_t pairs,
           Meanwhile& meanwhile) {
  const std::int64_t column = panel * kPanelColumns;
  const std::int64_t size = p.out_bf16 ? 2 : 4;
  const bool brought = !p.out_bf16 && (row > 0 || panel > 0);
  if (!brought) prefetch_block<kRows, true>(p.out, p.row_out, row * p.row_out + column, size);
  if (p.added != nullptr && p.added != p.out) {
    prefetch_block<kRows, false>(p.added, p.row_added, row * p.row_added + column, size);
  }
  const char* right = static_cast<const char*>(p.panels) + panel * pairs * kPanelPairBytes;
  VecF sums[kRows][kPanelVectors] = {};
  for (int term = 0; term < p.terms; ++term) {
    const PairRows& rows = block_rows.terms[term];
    constexpr std::int64_t kLeftBytes = kBlocks ? kPairBytes * kBlockRows : kPairBytes;
    const RowOffsets offset(kBlocks ? 4 : rows.row);
    const char* left = static_cast<const char*>(rows.data);
    for (std::int64_t pair = 0; pair < rows.pairs;) {
      meanwhile.next.some();
      meanwhile.out.some();
      for (Ahead& ahead : meanwhile.ahead) ahead.some();
      const std::int64_t end = pair + kPairsAtOnce < rows.pairs ? pair + kPairsAtOnce : rows.pairs;
      for (; pair < end; ++pair, left += kLeftBytes, right += kPanelPairBytes) {
        multiply_pair<kRows, kBlocks>(left, offset, right, sums);
#pragma GCC unroll 4
        for (int line = 0; line < kPanelPairBytes / kCacheLine; ++line) {
          __builtin_prefetch(right + kPanelAhead + line * kCacheLine);
        }
      }
    }
  }
  add_narrow<kRows>(p, row, panel, sums);
  if (p.out_bf16) {
    write_bf16<kRows>(p, row, column, sums);
  } else {
    const VecF squares = write_f32<kRows>(p, row, column, sums);
    if (p.squares != nullptr) p.squares[row / kBlockRows * p.row_squares + panel] = sum_of(squares);
  }
}

template <bool kBlocks, int kRows = kBlockRows>
void dispatch(std::int64_t rows, const PairProduct& p, const BlockRows& block_rows, std::int64_t row,
              std::int64_t panel, std::int64_t pairs, Meanwhile& meanwhile) {
  if (rows == kRows) {
    block<kRows, kBlocks>(p, block_rows, row, panel, pairs, meanwhile);
  } else if constexpr (kRows > 1) {
    dispatch<kBlocks, kRows - 1>(rows, p, block_rows, row, panel, pairs, meanwhile);
  }
}

template <bool kBlocks>
BlockRows rows_of_block(const PairProduct& p, std::int64_t row, std::int64_t rows) {
  BlockRows of;
  char* scratch = static_cast<char*>(p.scratch);
  for (int term = 0; term < p.terms; ++term) {
    const PairRows& left = p.left[term];
    of.terms[term] = kBlocks
                         ? PairRows{static_cast<const char*>(left.data) + row * left.pairs * kPairBytes, 0, left.pairs}
                         : left_rows(left, row, rows, scratch);
  }
  return of;
}

// A block of rows meets all panels while it is in the first cache, or in the second; the next one comes meanwhile.
template <bool kBlocks>
void multiply_blocks(const PairProduct& p) {
  const std::int64_t blocks = (p.rows + kBlockRows - 1) / kBlockRows;
  const std::int64_t panels = (p.columns + kPanelColumns - 1) / kPanelColumns;
  std::int64_t pairs = 0, looks = 0;
  for (int term = 0; term < p.terms; ++term) {
    pairs += p.left[term].pairs;
    looks += (p.left[term].pairs + kPairsAtOnce - 1) / kPairsAtOnce;
  }
  // Those that were laid out begin at multiples of their rows; all others are of nearly the same size.
  const auto begin_of = [&](std::int64_t i) {
    if (i >= blocks) return p.rows;
    return kBlocks ? i * kBlockRows : p.rows * i / blocks;
  };
  const std::int64_t all_looks = blocks * panels * looks;
  Meanwhile meanwhile{{}, {{p.ahead[0], all_looks}, {p.ahead[1], all_looks}}, {}};
  const auto written_by = [&](std::int64_t row, std::int64_t end, std::int64_t panel) {
    const float* first = static_cast<const float*>(p.out) + row * p.row_out + panel * kPanelColumns;
    return ByteRows{first, end - row, 4 * p.row_out, 4 * kPanelColumns};
  };
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t row = begin_of(i), end = begin_of(i + 1), following = kBlocks ? end : begin_of(i + 2);
    meanwhile.next = Ahead(
        {static_cast<const char*>(p.left->data) + end * p.left->row, following - end, p.left->row, p.left->pairs * 4},
        panels * looks);
    const BlockRows rows = rows_of_block<kBlocks>(p, row, end - row);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const bool last = panel + 1 == panels;
      if (!p.out_bf16) {
        meanwhile.out = Ahead(last ? written_by(end, begin_of(i + 2), 0) : written_by(row, end, panel + 1), looks);
      }
      dispatch<kBlocks>(end - row, p, rows, row, panel, pairs, meanwhile);
    }
  }
}

void multiply(const PairProduct& p) { (p.left->row != 0 ? multiply_blocks<false> : multiply_blocks<true>)(p); }

}  // namespace

const PairProductKernels pair_product_kernels = {kPanelColumns, kBlockRows,  kPairBytes,   scratch_bytes,
                                                 pair_rows,     pair_blocks, pair_columns, multiply};

}  // namespace tempora::TEMPORA_ISA

#else

namespace tempora::TEMPORA_ISA {

const PairProductKernels pair_product_kernels = {};

}  // namespace tempora::TEMPORA_ISA

#endif
