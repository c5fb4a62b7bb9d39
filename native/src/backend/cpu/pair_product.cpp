#include "pair_product.h"

#include <unistd.h>

#include <algorithm>

#include "kernels/pair_product.h"
#include "pair_parts.h"
#include "parallel.h"
#include "views.h"

namespace tempora {
namespace {

// What the panels that a thread multiplies by at once may take: half of its second cache, if that is known. More than
// the most was no faster.
constexpr long kLeastBudget = 512 << 10, kMostBudget = 1 << 20;
std::int64_t panels_budget() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  static const long cache = 0;
#endif
  return std::clamp(cache / 2, kLeastBudget, kMostBudget);
}

// Pairs that are multiplied before sums of another type than f32 go to memory.
constexpr std::int64_t kMostPairsAtOnce = 4096;
// Rows that are worth laying out a panel for once more.
constexpr std::int64_t kLeastRows = 192;
// The fewest rows of a part that a thread takes, if the item has so many: 0.2 ms and more by its panels.
constexpr std::int64_t kPartRows = 192;
// Parts beside which the next panels are asked for: what came earlier would have left the second cache again.
constexpr std::int64_t kLateParts = 2;
// A thread that is done helps another while so many parts of its share are left: it has to lay out the panels itself.
constexpr std::int64_t kLeastLeft = 2;

std::int64_t pairs_of(const PairSum& sum) {
  std::int64_t pairs = 0;
  for (const PairTerm& term : sum.terms) pairs += term.left.cols / 2;
  return pairs;
}

// The part of a sum's terms from one pair to another.
std::vector<PairTerm> slice(const PairSum& sum, std::int64_t begin, std::int64_t end) {
  std::vector<PairTerm> parts;
  std::int64_t first = 0;
  for (const PairTerm& term : sum.terms) {
    const std::int64_t pairs = term.left.cols / 2;
    const std::int64_t from = std::max(begin, first) - first, to = std::min(end, first + pairs) - first;
    first += pairs;
    if (from >= to) continue;
    const std::int64_t k = 2 * from, count = 2 * (to - from);
    parts.push_back({term.left.column_range(k, count),
                     sum.right_transposed ? term.right.column_range(k, count) : term.right.row_range(k, count)});
  }
  return parts;
}

// Rows that are multiplied at once, and how many of those behind them are brought meanwhile.
struct PairRange {
  std::int64_t row, rows, ahead;
};

// One sum, of all pairs or a part of them.
class PairPass {
 public:
  PairPass(const PairProductKernels& kernels, const PairSum& sum, std::int64_t begin, std::int64_t end)
      : kernels_(kernels), sum_(sum), terms_(slice(sum, begin, end)), pairs_(end - begin), first_(begin == 0) {}

  std::int64_t panels() const { return groups(sum_.out.cols, kernels_.panel_columns); }
  std::int64_t scratch_bytes() const { return kernels_.scratch_bytes(pairs_); }
  std::int64_t panel_bytes() const { return pairs_ * kernels_.panel_columns * kernels_.pair_bytes; }

  void lay_out(std::int64_t panel, char* to) const {
    const auto [first, columns] = columns_of(panel, 1);
    for (const PairTerm& term : terms_) {
      const Matrix& right = term.right;
      if (sum_.right_transposed) {
        kernels_.pair_columns(element(right, first * right.row_stride()), right.row_stride(), right.cols, columns, to);
      } else {
        kernels_.pair_rows(element(right, first), right.row_stride(), right.rows, columns, to);
      }
      to += term.left.cols / 2 * kernels_.panel_columns * kernels_.pair_bytes;
    }
  }

  // What lay_out reads first of these panels.
  ByteRows read_by(std::int64_t panel, std::int64_t count) const {
    const auto [first, columns] = columns_of(panel, count);
    const Matrix& right = terms_.front().right;
    if (sum_.right_transposed) {
      return {element(right, first * right.row_stride()), columns, right.row_stride() * 2, right.cols * 2};
    }
    return {element(right, first), right.rows, right.row_stride() * 2, columns * 2};
  }

  void multiply(const PairRange& range, std::int64_t panel, std::int64_t count, const void* laid_out, void* scratch,
                const ByteRows& ahead) const {
    const auto [first, columns] = columns_of(panel, count);
    const std::int64_t row = range.row;
    PairProduct product;
    product.terms = static_cast<int>(terms_.size());
    for (std::size_t i = 0; i < terms_.size(); ++i) {
      const Matrix& x = terms_[i].left;
      product.left[i] = {element(x, row * x.row_stride()), 2 * x.row_stride(), x.cols / 2};
    }
    if (first_) add_narrow(product, row, panel);
    product.rows = range.rows;
    product.panels = laid_out;
    product.columns = columns;
    product.out = element(sum_.out, row * sum_.out.row_stride() + first);
    product.row_out = sum_.out.row_stride();
    product.out_bf16 = sum_.out.dtype == DType::bf16;
    const Matrix& added = first_ ? sum_.added : sum_.out;
    if (added.data != nullptr) product.added = element(added, row * added.row_stride() + first);
    product.row_added = added.row_stride();
    product.ahead[0] = ahead;
    const Matrix& x = terms_.front().left;
    product.ahead[1] = {element(x, (row + range.rows) * x.row_stride()), range.ahead, 2 * x.row_stride(), 2 * x.cols};
    product.scratch = scratch;
    kernels_.multiply(product);
  }

 private:
  struct Columns {
    std::int64_t first, count;
  };
  Columns columns_of(std::int64_t panel, std::int64_t count) const {
    const std::int64_t first = panel * kernels_.panel_columns;
    return {first, std::min(sum_.out.cols - first, count * kernels_.panel_columns)};
  }

  void add_narrow(PairProduct& product, std::int64_t row, std::int64_t panel) const {
    for (const PairNarrow& one : sum_.narrow) {
      const Matrix& rows = one.narrow;
      product.narrow[product.narrow_terms++] = {rows.f32() + row * rows.row_stride(), rows.row_stride(), rows.cols,
                                                one.right + panel * one.panel,        one.panel,         one.row};
    }
  }

  const PairProductKernels& kernels_;
  const PairSum& sum_;
  std::vector<PairTerm> terms_;
  std::int64_t pairs_;
  bool first_;
};

// Panels of one sum, and the rows to multiply by them.
struct PairItem {
  const PairPass* pass;
  std::int64_t row, rows, panel, count;
};

// A thread's share: all panels by some of `parts` of the rows, so many panels at once as its cache holds.
std::vector<PairItem> share_of(const std::vector<PairPass>& passes, std::int64_t rows, std::int64_t parts,
                               std::int64_t thread, std::int64_t threads) {
  std::int64_t panels = 0;
  for (const PairPass& pass : passes) panels += pass.panels();
  const std::int64_t begin = panels * parts * thread / threads, end = panels * parts * (thread + 1) / threads;
  std::vector<PairItem> items;
  std::int64_t first = 0;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t row = rows * part / parts, row_end = rows * (part + 1) / parts;
    for (const PairPass& pass : passes) {
      std::int64_t panel = std::max(begin - first, std::int64_t{0});
      const std::int64_t panel_end = std::min(end - first, pass.panels());
      while (panel < panel_end) {
        const std::int64_t at_once = std::max<std::int64_t>(1, panels_budget() / pass.panel_bytes());
        const std::int64_t left = panel_end - panel, count = groups(left, groups(left, at_once));
        items.push_back({&pass, row, row_end - row, panel, count});
        panel += count;
      }
      first += pass.panels();
    }
  }
  return items;
}

// All threads' shares, in parts of their items' rows that any thread can take.
class PairShares {
 public:
  PairShares(const std::vector<PairPass>& passes, std::int64_t rows, int threads, std::int64_t block_rows) {
    std::int64_t panels = 0, parts = 1;
    for (const PairPass& pass : passes) panels += pass.panels();
    while (uneven(panels * parts, threads) && rows / parts >= 2 * kLeastRows) parts *= 2;
    for (int i = 0; i < threads; ++i) items_.push_back(share_of(passes, rows, parts, i, threads));
    for (const std::vector<PairItem>& items : items_) {
      begins_.push_back(static_cast<std::int64_t>(parts_.size()));
      for (const PairItem& item : items) {
        panels_bytes_ = std::max(panels_bytes_, item.count * item.pass->panel_bytes());
        scratch_bytes_ = std::max(scratch_bytes_, item.pass->scratch_bytes());
        add(item, &item == &items.back() ? nullptr : &item + 1, block_rows);
      }
    }
    begins_.push_back(static_cast<std::int64_t>(parts_.size()));
  }

  void multiply(CpuBackend& backend) const {
    const std::int64_t own_bytes = panels_bytes_ + scratch_bytes_;
    const Buffer scratch = backend.workspace(static_cast<std::size_t>(own_bytes * backend.threads()));
    std::vector<const PairItem*> laid_out(static_cast<std::size_t>(backend.threads()));
    parallel_kept_ranges(backend.threads(), begins_, kLeastLeft, [&](std::int64_t index, std::int64_t thread) {
      const Part& part = parts_[static_cast<std::size_t>(index)];
      const PairItem& item = *part.item;
      char* own = static_cast<char*>(scratch.data()) + thread * own_bytes;
      if (const PairItem*& last = laid_out[static_cast<std::size_t>(thread)]; last != &item) {
        for (std::int64_t panel = 0; panel < item.count; ++panel) {
          item.pass->lay_out(item.panel + panel, own + panel * item.pass->panel_bytes());
        }
        last = &item;
      }
      item.pass->multiply(part.rows, item.panel, item.count, own, own + panels_bytes_, part.ahead);
    });
  }

 private:
  struct Part {
    const PairItem* item;
    PairRange rows;
    ByteRows ahead;  // of what is laid out next in its share
  };

  void add(const PairItem& item, const PairItem* next, std::int64_t block_rows) {
    const std::int64_t count = std::max<std::int64_t>(1, item.rows / kPartRows);
    const auto begin_of = [&](std::int64_t i) {
      return i == count ? item.rows : item.rows * i / count / block_rows * block_rows;
    };
    const ByteRows ahead = next == nullptr ? ByteRows{} : next->pass->read_by(next->panel, next->count);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t following = i + 1 < count ? block_rows : 0;
      parts_.push_back({&item,
                        {item.row + begin_of(i), begin_of(i + 1) - begin_of(i), following},
                        late_part_of(ahead, i, count, kLateParts)});
    }
  }

  std::vector<std::vector<PairItem>> items_;  // of each thread
  std::vector<Part> parts_;
  std::vector<std::int64_t> begins_;  // of each thread's parts, and the end
  std::int64_t panels_bytes_ = 0;     // the most that are laid out at once
  std::int64_t scratch_bytes_ = 0;
};

}  // namespace

bool add_up_pairs(CpuBackend& backend, const std::vector<PairSum>& sums) {
  const PairProductKernels& kernels = pair_product_kernels_for(backend.isa());
  const std::int64_t pairs = pairs_of(sums.front()), rows = sums.front().out.rows;
  bool f32 = true;
  for (const PairSum& sum : sums) {
    for (const PairTerm& term : sum.terms) {
      if (!multiplies_pairs(backend, term.left, term.right)) return false;
    }
    require(pairs_of(sum) == pairs && sum.out.rows == rows, "add_up_pairs: all sums are over as many pairs and rows");
    require(std::max(sum.terms.size(), sum.narrow.size()) <= kMostPairTerms, "add_up_pairs: a sum of few products");
    require(sum.added.data == nullptr || sum.added.dtype == sum.out.dtype,
            "add_up_pairs: sums are added to their type");
    f32 = f32 && sum.out.dtype == DType::f32;
  }
  if (!f32 && pairs > kMostPairsAtOnce) return false;
  const std::int64_t count = f32 ? groups(pairs, kMostPairs) : 1;
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<PairPass> passes;
    for (const PairSum& sum : sums) passes.emplace_back(kernels, sum, pairs * i / count, pairs * (i + 1) / count);
    PairShares(passes, rows, backend.threads(), kernels.block_rows).multiply(backend);
  }
  return true;
}

namespace {

// Tiles of left · rightᵀ: some rows of `right` laid out by one thread, and multiplied by blocks of `left`.
struct PairTiles {
  const PairProductKernels& kernels;
  const Matrix &left, &right;
  std::int64_t rows, columns;

  std::int64_t laid_out_bytes() const { return groups(columns, kernels.panel_columns) * panel_bytes(); }
  std::int64_t panel_bytes() const { return left.cols / 2 * kernels.panel_columns * kernels.pair_bytes; }
  std::int64_t scratch_bytes() const { return kernels.scratch_bytes(left.cols / 2); }
  std::int64_t columns_from(std::int64_t column) const {
    return std::clamp(right.rows - column, std::int64_t{0}, columns);
  }

  void lay_out(std::int64_t column, char* to) const {
    const std::int64_t count = columns_from(column);
    for (std::int64_t i = 0; i < count; i += kernels.panel_columns, to += panel_bytes()) {
      kernels.pair_columns(element(right, (column + i) * right.row_stride()), right.row_stride(), right.cols,
                           std::min<std::int64_t>(kernels.panel_columns, count - i), to);
    }
  }

  // By all rows, so many panels at a time as stay in the second cache; the rows of `right` from `following` on are
  // brought meanwhile.
  void multiply(std::int64_t column, std::int64_t following, const char* laid_out, char* scratch, float* tile,
                const std::function<void(const PairTile&)>& body) const {
    const std::int64_t width = columns_from(column), ahead = columns_from(following);
    const std::int64_t at_once = std::max<std::int64_t>(1, panels_budget() / panel_bytes()) * kernels.panel_columns;
    PairProduct product;
    product.row_out = width;
    product.scratch = scratch;
    const std::int64_t blocks = groups(left.rows, rows);
    for (std::int64_t i = 0; i < blocks; ++i) {
      const std::int64_t row = left.rows * i / blocks, begin = ahead * i / blocks;
      product.rows = left.rows * (i + 1) / blocks - row;
      product.left[0] = {element(left, row * left.row_stride()), 2 * left.row_stride(), left.cols / 2};
      product.ahead[0] = {element(right, (following + begin) * right.row_stride()), ahead * (i + 1) / blocks - begin,
                          2 * right.row_stride(), 2 * right.cols};
      for (std::int64_t first = 0; first < width; first += at_once) {
        product.panels = laid_out + first / kernels.panel_columns * panel_bytes();
        product.columns = std::min(at_once, width - first);
        product.out = tile + first;
        kernels.multiply(product);
        product.ahead[0] = {};
      }
      body({row, product.rows, column, width, tile});
    }
  }
};

}  // namespace

bool multiplies_pairs_of(Isa isa, DType dtype) {
  return dtype == DType::bf16 && pair_product_kernels_for(isa).panel_columns != 0;
}

bool multiplies_pairs(CpuBackend& backend, const Matrix& left, const Matrix& right) {
  // A row's last number by itself has no neighbour.
  return multiplies_pairs_of(backend.isa(), left.dtype) && is_large(left) && is_large(right) && left.cols % 2 == 0;
}

void for_pair_tiles(CpuBackend& backend, const Matrix& left, const Matrix& right, std::int64_t rows,
                    std::int64_t columns, const std::function<void(const PairTile&)>& body) {
  const PairProductKernels& kernels = pair_product_kernels_for(backend.isa());
  const PairTiles tiles{kernels, left, right, rows, columns};
  const std::int64_t tile_bytes = rows * columns * 4, laid_out = tiles.laid_out_bytes();
  const std::int64_t own_bytes = tile_bytes + laid_out + tiles.scratch_bytes();
  const Buffer scratch = backend.workspace(static_cast<std::size_t>(own_bytes * backend.threads()));
  parallel_items(backend.threads(), groups(right.rows, columns), [&](std::int64_t item, std::int64_t thread) {
    char* own = static_cast<char*>(scratch.data()) + thread * own_bytes;
    const std::int64_t column = item * columns;
    tiles.lay_out(column, own);
    tiles.multiply(column, column + backend.threads() * columns, own, own + laid_out + tile_bytes,
                   reinterpret_cast<float*>(own + laid_out), body);
  });
}

}  // namespace tempora
