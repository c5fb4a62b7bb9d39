#include "packed.h"

#include "packed_layout.h"
#include "row_offsets.h"
#include "simd.h"
#if defined(TEMPORA_TILES)
#include "packed_tiles.h"
#endif

namespace tempora::TEMPORA_ISA {
namespace {

// Accumulators that fit the registers beside the operands.
constexpr int kAccumulators = kWidth == 16 ? 24 : kWidth == 8 ? 12 : 8;
constexpr int kMostRows = kAccumulators / kPanelVectors;
constexpr int kCacheLine = 64;

struct F32Weights {
  using X = float;
  using W = float;
  static constexpr int kStep = 1;  // of k

  template <int kRows>
  static inline void step(const X* x, const RowOffsets& offset, const W* w, VecF (&sums)[kRows][kPanelVectors]) {
    VecF weight[kPanelVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) weight[v] = load(w + v * kWidth);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const VecF value = splat(*offset.row(x, r));
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) sums[r][v] += value * weight[v];
    }
  }
};

#if !defined(TEMPORA_TILES)

inline VecU load_pairs(const Bf16* from) {
  VecU v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
#endif

#if defined(TEMPORA_TILES)

// Weights of bf16 are multiplied by tiles, see multiply_by_tiles.

#elif defined(__AVX512BF16__)

struct Bf16Weights {
  using X = Bf16;
  using W = Bf16;
  static constexpr int kStep = 2;

  template <int kRows>
  static inline void step(const X* x, const RowOffsets& offset, const W* w, VecF (&sums)[kRows][kPanelVectors]) {
    VecU weight[kPanelVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      weight[v] = load_pairs(w + v * kWidth * 2);
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      std::uint32_t pair;
      __builtin_memcpy(&pair, offset.row(x, r), sizeof pair);
      const VecU value = pair - VecU{};
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) {
        sums[r][v] = reinterpret_cast<VecF>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums[r][v]),
                                                             reinterpret_cast<__m512bh>(value),
                                                             reinterpret_cast<__m512bh>(weight[v])));
      }
    }
  }
};

#else

struct Bf16Weights {
  using X = float;
  using W = Bf16;
  static constexpr int kStep = 2;

  // A pair's halves are widened by a shift and by a mask.
  template <int kRows>
  static inline void step(const X* x, const RowOffsets& offset, const W* w, VecF (&sums)[kRows][kPanelVectors]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      VecF weight[kPanelVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) {
        const VecU pairs = load_pairs(w + v * kWidth * 2);
        weight[v] = reinterpret_cast<VecF>(half == 0 ? pairs << 16 : pairs & 0xFFFF0000u);
      }
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const VecF value = splat(offset.row(x, r)[half]);
#pragma GCC unroll 2
        for (int v = 0; v < kPanelVectors; ++v) sums[r][v] += value * weight[v];
      }
    }
  }
};

#endif

// sums [rows, stride], of which `columns` are the block's.
template <typename T>
void write_rows(const PackedProduct& p, const float* sums, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                std::int64_t row, std::int64_t column) {
  T* out = static_cast<T*>(p.out) + row * p.row_out + column;
  const std::int64_t count = p.n - column < columns ? p.n - column : columns;
  for (std::int64_t r = 0; r < rows; ++r, out += p.row_out, sums += stride) {
    for_vectors(count, [&](auto load, auto store) { store(out, p.accumulate ? load(out) + load(sums) : load(sums)); });
  }
}

template <typename Weights>
constexpr std::int64_t kStepBytes =
    Weights::kStep* kPanelColumns* static_cast<std::int64_t>(sizeof(typename Weights::W));

// As write_rows, of a whole panel and from the registers.
template <typename T, int kRows>
[[gnu::always_inline]] inline void write_panel(const PackedProduct& p, std::int64_t row, std::int64_t column,
                                               const VecF (&sums)[kRows][kPanelVectors]) {
  T* out = static_cast<T*>(p.out) + row * p.row_out + column;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += p.row_out) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) {
      T* to = out + v * kWidth;
      store(to, p.accumulate ? load(to) + sums[r][v] : sums[r][v]);
    }
  }
}

// Where a block is written, asked for before it is computed.
template <int kRows>
inline void prefetch_out(const PackedProduct& p, std::int64_t row, std::int64_t column) {
  const std::int64_t size = p.out_bf16 ? 2 : 4;
  const char* line = static_cast<const char*>(p.out) + (row * p.row_out + column) * size;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, line += p.row_out * size) {
    __builtin_prefetch(line, 1);
    if (size * kPanelColumns > kCacheLine) __builtin_prefetch(line + kCacheLine, 1);
  }
}

// What comes from memory while a block is computed: some lines at each step of k, `stride` bytes after those of the
// step before. It comes to the second cache, which can wait for more lines at once than the first.
struct Ahead {
  const char* next = nullptr;
  std::int64_t stride = 0;
};

// Where a panel comes from memory while it is multiplied by, it is asked for from the second cache so many bytes ahead.
constexpr std::int64_t kNearAhead = 2048;

// kRows rows by a panel, which comes from memory meanwhile if kStreams; `ahead` until step `turn` of k, and `then`.
template <typename Weights, int kRows, int kLines, bool kStreams>
void block(const PackedProduct& p, std::int64_t row, std::int64_t panel, Ahead ahead, std::int64_t turn, Ahead then) {
  const auto* x = static_cast<const typename Weights::X*>(p.x) + row * p.row_x;
  const auto* w = static_cast<const typename Weights::W*>(p.panels) + panel * p.k * kPanelColumns;
  VecF sums[kRows][kPanelVectors] = {};
  const RowOffsets offset(p.row_x);
  const std::int64_t column = panel * kPanelColumns;
  prefetch_out<kRows>(p, row, column);
  for (std::int64_t k = 0, end = turn; k < p.k; end = p.k, ahead = then) {
    for (; k < end; k += Weights::kStep, w += Weights::kStep * kPanelColumns) {
      Weights::template step<kRows>(x + k, offset, w, sums);
#pragma GCC unroll 2
      for (int i = 0; i < kLines; ++i) {
        __builtin_prefetch(ahead.next + i * kCacheLine, 0, 2);
        if (kStreams) __builtin_prefetch(reinterpret_cast<const char*>(w) + kNearAhead + i * kCacheLine);
      }
      ahead.next += ahead.stride;
    }
  }
  if (column + kPanelColumns <= p.n) {
    return p.out_bf16 ? write_panel<Bf16>(p, row, column, sums) : write_panel<float>(p, row, column, sums);
  }
  // Through memory: with masks for each register, this would be most of the code.
  alignas(64) float results[kRows * kPanelColumns];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) store(results + (r * kPanelVectors + v) * kWidth, sums[r][v]);
  }
  (p.out_bf16 ? write_rows<Bf16> : write_rows<float>)(p, results, kPanelColumns, kRows, kPanelColumns, row, column);
}

// What follows a thread's last panel; where nothing does, again and again what is there already.
Ahead following(const PackedProduct& p, std::int64_t stride) {
  return p.following != nullptr ? Ahead{static_cast<const char*>(p.following), stride}
                                : Ahead{static_cast<const char*>(p.x), 0};
}

// Few rows: the weights stream from memory, and are asked for a little ahead. Where that ends, with the thread's last
// panel, what follows is.
template <typename Weights, int kRows>
void few_rows(const PackedProduct& p, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kStride = kStepBytes<Weights>, kAhead = 12288;
  constexpr int kLines = kStride <= kCacheLine ? 1 : static_cast<int>(kStride / kCacheLine);
  constexpr std::int64_t kStepsAhead = kAhead / kStride * Weights::kStep;
  const std::int64_t turn = p.k > kStepsAhead ? p.k - kStepsAhead : 0;
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const char* own = static_cast<const char*>(p.panels) + panel * (p.k / Weights::kStep) * kStride;
    block<Weights, kRows, kLines, true>(p, 0, panel, {own + kAhead, kStride}, panel + 1 < end ? p.k : turn,
                                        following(p, kStride));
  }
}

template <typename Weights, int kRows = kMostRows>
void dispatch_few(const PackedProduct& p, std::int64_t begin, std::int64_t end) {
  if (p.rows == kRows) {
    few_rows<Weights, kRows>(p, begin, end);
  } else if constexpr (kRows > 1) {
    dispatch_few<Weights, kRows - 1>(p, begin, end);
  }
}

template <typename Weights, int kRows = kMostRows>
void dispatch_block(std::int64_t rows, const PackedProduct& p, std::int64_t row, std::int64_t panel, Ahead ahead) {
  if (rows == kRows) {
    block<Weights, kRows, 1, false>(p, row, panel, ahead, p.k, ahead);
  } else if constexpr (kRows > kMostRows / 2) {
    dispatch_block<Weights, kRows - 1>(rows, p, row, panel, ahead);
  }
}

// Many rows: blocks of even size, panel by panel; each block brings its part of the next panel.
template <typename Weights>
void many_rows(const PackedProduct& p, std::int64_t begin, std::int64_t end) {
  const std::int64_t blocks = (p.rows + kMostRows - 1) / kMostRows;
  const std::int64_t stride = (kStepBytes<Weights> + blocks - 1) / blocks;
  for (std::int64_t panel = begin; panel < end; ++panel) {
    const char* next = static_cast<const char*>(p.panels) + (panel + 1) * (p.k / Weights::kStep) * kStepBytes<Weights>;
    Ahead ahead = panel + 1 < end ? Ahead{next, stride} : following(p, stride);
    for (std::int64_t i = 0; i < blocks; ++i) {
      const std::int64_t row = p.rows * i / blocks, row_end = p.rows * (i + 1) / blocks;
      dispatch_block<Weights>(row_end - row, p, row, panel, ahead);
      ahead.next += p.k / Weights::kStep * ahead.stride;
    }
  }
}

template <typename Weights>
void multiply(const PackedProduct& p, std::int64_t begin, std::int64_t end) {
  (p.rows <= kMostRows ? dispatch_few<Weights, kMostRows> : many_rows<Weights>)(p, begin, end);
}

#if defined(TEMPORA_TILES)

void multiply_by_tiles(const PackedProduct& p, std::int64_t begin, std::int64_t end) {
  const auto write = [&p](auto... block) { (p.out_bf16 ? write_rows<Bf16> : write_rows<float>)(p, block...); };
  PanelTiles<kPanelColumns, decltype(write)>(p, write).multiply(begin, end);
}

constexpr auto multiply_bf16 = multiply_by_tiles;
constexpr bool kBf16TakesBf16 = true;
constexpr int kBf16Unit = kTileDepth;

#else

constexpr auto multiply_bf16 = multiply<Bf16Weights>;
constexpr bool kBf16TakesBf16 = sizeof(Bf16Weights::X) == sizeof(Bf16);
constexpr int kBf16Unit = Bf16Weights::kStep;

#endif

}  // namespace

const PackedKernels packed_kernels = {
    kPanelColumns,
    kBf16TakesBf16,
    {F32Weights::kStep, kBf16Unit},
    {pack<float, 1, 1>, pack<Bf16, 2, kBf16Unit>},
    {multiply<F32Weights>, multiply_bf16},
};

}  // namespace tempora::TEMPORA_ISA
