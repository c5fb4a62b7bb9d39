#include "pair_product.h"

#if defined(__AVX512BF16__) && !defined(TEMPORA_TILES)

#include "ahead.h"
#include "pair_layout.h"
#include "row_offsets.h"

namespace tempora::TEMPORA_ISA {
namespace {

constexpr int kPanelVectors = kPanelColumns / 16;
constexpr std::int64_t kPairBytes = kPanelColumns * 4;  // a panel's

// Bytes of a panel that are asked for ahead: it streams from the second cache.
constexpr std::int64_t kPanelAhead = 2048;

// Pairs that are multiplied between two looks at what else is to be brought: a cache line of a row.
constexpr std::int64_t kPairsAtOnce = 16;

// A masked shift and widening, since GCC 12 warns of the plain ones' unused operand.
inline __m512 widened(__m256i halves) {
  constexpr __mmask16 kAll = 0xFFFF;
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, halves), 16));
}

// A null pointer has no rows to step through, though they are not read.
inline const void* added_of(const PairProduct& p) { return p.added != nullptr ? p.added : p.out; }

// Inlined, as the next: sums whose address is taken leave the registers.
template <int kRows>
[[gnu::always_inline]] inline void write_bf16(const PairProduct& p, std::int64_t row, std::int64_t column,
                                              const __m512 (&sums)[kRows][2]) {
  std::uint16_t* out = static_cast<std::uint16_t*>(p.out) + row * p.row_out + column;
  const std::uint16_t* added = static_cast<const std::uint16_t*>(added_of(p)) + row * p.row_added + column;
  const __mmask16 mask[] = {first_words(p.columns - column), first_words(p.columns - column - 16)};
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += p.row_out, added += p.row_added) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      __m512 sum = sums[r][v];
      if (p.added != nullptr) sum = _mm512_add_ps(sum, widened(_mm256_maskz_loadu_epi16(mask[v], added + 16 * v)));
      _mm256_mask_storeu_epi16(out + 16 * v, mask[v], reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum)));
    }
  }
}

// sums += the narrow terms.
template <int kRows>
[[gnu::always_inline]] inline void add_narrow(const PairProduct& p, std::int64_t row, std::int64_t panel,
                                              __m512 (&sums)[kRows][2]) {
  const std::int64_t column = panel * kPanelColumns;
  const __mmask16 mask[] = {first_words(p.columns - column), first_words(p.columns - column - 16)};
  for (int term = 0; term < p.narrow_terms; ++term) {
    const NarrowRows& narrow = p.narrow[term];
    const RowOffsets offset(4 * narrow.row);
    const char* left = reinterpret_cast<const char*>(narrow.rows + row * narrow.row);
    const float* right = narrow.right + panel * narrow.panel;
    for (std::int64_t k = 0; k < narrow.rank; ++k, left += 4, right += narrow.step) {
      const __m512 first = _mm512_maskz_loadu_ps(mask[0], right), second = _mm512_maskz_loadu_ps(mask[1], right + 16);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        float one;
        __builtin_memcpy(&one, offset.row(left, r), sizeof one);
        const __m512 value = _mm512_set1_ps(one);
        sums[r][0] = _mm512_fmadd_ps(value, first, sums[r][0]);
        sums[r][1] = _mm512_fmadd_ps(value, second, sums[r][1]);
      }
    }
  }
}

// Returns the squares of what was written, added up over the block's rows.
template <int kRows>
[[gnu::always_inline]] inline __m512 write_f32(const PairProduct& p, std::int64_t row, std::int64_t column,
                                               const __m512 (&sums)[kRows][2]) {
  float* out = static_cast<float*>(p.out) + row * p.row_out + column;
  const float* added = static_cast<const float*>(added_of(p)) + row * p.row_added + column;
  const __mmask16 mask[] = {first_words(p.columns - column), first_words(p.columns - column - 16)};
  __m512 squares[kPanelVectors] = {};
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += p.row_out, added += p.row_added) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      __m512 sum = sums[r][v];
      if (p.added != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask[v], added + 16 * v));
      _mm512_mask_storeu_ps(out + 16 * v, mask[v], sum);
      squares[v] = _mm512_fmadd_ps(sum, sum, squares[v]);
    }
  }
  return _mm512_add_ps(squares[0], squares[1]);
}

// Of many such vectors the sum is wanted in f64.
inline double sum_of(__m512 x) {
  float lanes[16];
  double total = 0;
  _mm512_storeu_ps(lanes, x);
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}

// Where the block is written and what is added to it, brought before they are wanted.
template <int kRows, bool kWritten>
inline void prefetch_block(const void* data, std::int64_t row_elements, std::int64_t first, std::int64_t size) {
  const char* line = static_cast<const char*>(data) + first * size;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, line += row_elements * size) {
    __builtin_prefetch(line, kWritten ? 1 : 0);
    if (size > 2) __builtin_prefetch(line + kCacheLine, kWritten ? 1 : 0);
  }
}

// What is brought while a block is multiplied: the next block's rows, what the caller asks for, and of f32 where the
// next block is written.
struct Meanwhile {
  Ahead next, ahead[2], out;
};

// kRows rows by one panel. kBlocks: rows of the left operand are as pair_blocks writes them.
template <int kRows, bool kBlocks>
void block(const PairProduct& p, std::int64_t row, std::int64_t panel, std::int64_t pairs, Meanwhile& meanwhile) {
  const std::int64_t column = panel * kPanelColumns;
  const std::int64_t size = p.out_bf16 ? 2 : 4;
  const bool brought = !p.out_bf16 && (row > 0 || panel > 0);
  if (!brought) prefetch_block<kRows, true>(p.out, p.row_out, row * p.row_out + column, size);
  if (p.added != nullptr && p.added != p.out) {
    prefetch_block<kRows, false>(p.added, p.row_added, row * p.row_added + column, size);
  }
  const char* right = static_cast<const char*>(p.panels) + panel * pairs * kPairBytes;
  __m512 sums[kRows][kPanelVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
  for (int term = 0; term < p.terms; ++term) {
    const PairRows& rows = p.left[term];
    constexpr std::int64_t kPairBytesLeft = kBlocks ? 4 * kBlockRows : 4;
    const RowOffsets offset(kBlocks ? 4 : rows.row);
    const char* left = static_cast<const char*>(rows.data) + row * (kBlocks ? 4 * rows.pairs : rows.row);
    for (std::int64_t pair = 0; pair < rows.pairs;) {
      meanwhile.next.some();
      meanwhile.out.some();
      for (Ahead& ahead : meanwhile.ahead) ahead.some();
      const std::int64_t end = pair + kPairsAtOnce < rows.pairs ? pair + kPairsAtOnce : rows.pairs;
      for (; pair < end; ++pair, left += kPairBytesLeft, right += kPairBytes) {
        const auto first = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right));
        const auto second = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + kCacheLine));
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
          int two;
          __builtin_memcpy(&two, offset.row(left, r), sizeof two);
          const auto value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
          sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, first);
          sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, second);
        }
        __builtin_prefetch(right + kPanelAhead);
        __builtin_prefetch(right + kPanelAhead + kCacheLine);
      }
    }
  }
  add_narrow<kRows>(p, row, panel, sums);
  if (p.out_bf16) {
    write_bf16<kRows>(p, row, column, sums);
  } else {
    const __m512 squares = write_f32<kRows>(p, row, column, sums);
    if (p.squares != nullptr) p.squares[row / kBlockRows * p.row_squares + panel] = sum_of(squares);
  }
}

template <bool kBlocks, int kRows = kBlockRows>
void dispatch(std::int64_t rows, const PairProduct& p, std::int64_t row, std::int64_t panel, std::int64_t pairs,
              Meanwhile& meanwhile) {
  if (rows == kRows) {
    block<kRows, kBlocks>(p, row, panel, pairs, meanwhile);
  } else if constexpr (kRows > 1) {
    dispatch<kBlocks, kRows - 1>(rows, p, row, panel, pairs, meanwhile);
  }
}

// A block of rows meets all panels while it is in the first cache; the next one comes meanwhile.
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
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const bool last = panel + 1 == panels;
      if (!p.out_bf16) {
        meanwhile.out = Ahead(last ? written_by(end, begin_of(i + 2), 0) : written_by(row, end, panel + 1), looks);
      }
      dispatch<kBlocks>(end - row, p, row, panel, pairs, meanwhile);
    }
  }
}

void multiply(const PairProduct& p) { (p.left->row != 0 ? multiply_blocks<false> : multiply_blocks<true>)(p); }

}  // namespace

const PairProductKernels pair_product_kernels = {kPanelColumns, kBlockRows,   pair_rows,
                                                 pair_blocks,   pair_columns, multiply};

}  // namespace tempora::TEMPORA_ISA

#else

namespace tempora::TEMPORA_ISA {

const PairProductKernels pair_product_kernels = {};

}  // namespace tempora::TEMPORA_ISA

#endif
