// Hopper's barriers, bulk copies and products of a warpgroup, on the emulated device.
#include "hopper.cuh"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "mma.cuh"

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* data,
                                const cuuint64_t* size, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* element_strides, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  constexpr std::uint64_t kMostColumns = 64, kMostRows = 256;  // of a box swizzled by 128 bytes
  const bool fits = rank == 2 && reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && strides[0] % 16 == 0 &&
                    box[0] == kMostColumns && box[1] > 0 && box[1] <= kMostRows && element_strides[0] == 1 &&
                    element_strides[1] == 1 && size[0] > 0 && size[1] > 0;
  if (!fits) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const char*>(data), size[0], size[1], strides[0], box[0], box[1]};
  return CUDA_SUCCESS;
}

namespace tempora::device {
namespace {

constexpr std::uint32_t kSharedBase = 1040;
constexpr int kLanes = 32, kRowBytes = 128, kProductInputs = 16, kWarps = kWarpgroup / kLanes;

char* at_address(std::uint32_t address) { return emulation::launched_shared() + (address - kSharedBase); }

std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

// As the hardware keeps one: in 64 bits.
struct Barrier {
  std::uint16_t expected, missing;
  std::int32_t bytes : 31;
  std::uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == sizeof(std::uint64_t));

// What a block's copies and warpgroups have done.
struct BlockState : emulation::UnderWay {
  // A product that not all warps of a warpgroup have begun yet.
  struct Begun {
    std::uint64_t a, b;
    bool turned;
    int pairs, warps;
  };
  static constexpr int kMostWarpgroups = 8;

  std::vector<char> brought;  // shared memory as copies have left it
  std::array<std::vector<Begun>, kMostWarpgroups> begun;
  std::array<std::size_t, std::size_t{kMostWarpgroups} * kWarps> of_warp{};  // of `begun`, those that a warp has begun

  void check_end() const override {
    const bool all = std::all_of(begun.begin(), begun.end(), [](const auto& products) { return products.empty(); });
    if (!all) throw std::logic_error("warps of a warpgroup begin different numbers of products");
  }
  void begin_product(int warp, const Begun& product) {
    std::vector<Begun>& products = begun.at(static_cast<std::size_t>(warp / kWarps));
    const std::size_t at = of_warp.at(static_cast<std::size_t>(warp))++;
    if (at == products.size()) products.push_back(product);
    Begun& same = products[at];
    if (same.a != product.a || same.b != product.b || same.turned != product.turned || same.pairs != product.pairs) {
      throw std::logic_error("warps of a warpgroup multiply different operands");
    }
    if (++same.warps < kWarps) return;
    products.erase(products.begin());
    const auto first = of_warp.begin() + warp / kWarps * kWarps;
    std::for_each(first, first + kWarps, [](std::size_t& count) { --count; });
  }
  // Shared memory there is what copies brought, not threads.
  void bring(std::size_t at, const char* from, std::size_t bytes) {
    if (brought.size() < at + bytes) brought.resize(at + bytes, '\xFF');
    std::memcpy(brought.data() + at, from, bytes);
  }
  bool was_brought(std::size_t at, const char* from, std::size_t bytes) const {
    return at + bytes <= brought.size() && std::memcmp(brought.data() + at, from, bytes) == 0;
  }
};

BlockState& this_block() {
  auto& state = emulation::block_state();
  if (!state) state = std::make_unique<BlockState>();
  return static_cast<BlockState&>(*state);
}

Barrier read_barrier(const std::uint64_t* barrier) {
  Barrier state;
  std::memcpy(&state, barrier, sizeof state);
  return state;
}

void write_barrier(std::uint64_t* barrier, Barrier state) {
  if (state.missing == 0 && state.bytes == 0) {
    state.missing = state.expected;
    state.phase ^= 1;
  }
  std::memcpy(barrier, &state, sizeof state);
}

void arrive_with(std::uint64_t* barrier, int bytes) {
  Barrier state = read_barrier(barrier);
  if (state.missing == 0) throw std::logic_error("more threads arrive at a barrier than it waits for");
  --state.missing;
  state.bytes += bytes;
  write_barrier(barrier, state);
}

void copy_rows(char* to_shared, std::uint32_t to, const CUtensorMap& map, int column, int row) {
  for (std::uint32_t r = 0; r < map.box_rows; ++r) {
    for (std::uint32_t c = 0; c < map.box_columns; ++c) {
      const std::int64_t from_row = std::int64_t{row} + r, from_column = std::int64_t{column} + c;
      const bool there = from_row >= 0 && from_row < static_cast<std::int64_t>(map.rows) && from_column >= 0 &&
                         from_column < static_cast<std::int64_t>(map.columns);
      char* target = to_shared + (swizzled(to + r * kRowBytes + 2 * c) - to);
      if (there) {
        std::memcpy(target, map.data + static_cast<std::uint64_t>(from_row) * map.row_bytes + 2 * from_column, 2);
      } else {
        std::memset(target, 0, 2);
      }
    }
  }
}

// ---- products

using Words = std::vector<std::uint16_t>;

// Number (row, k) of an operand in shared memory.
std::uint16_t operand_number(std::uint64_t descriptor, bool turned, int row, int k) {
  const auto bits = [&](int first, int count) {
    return static_cast<std::uint32_t>(descriptor >> first & ((std::uint64_t{1} << count) - 1));
  };
  if (bits(62, 2) != 1 || bits(49, 3) != 0) throw std::logic_error("a descriptor of another layout");
  const std::uint32_t start = bits(0, 14) << 4, leading = bits(16, 14) << 4, stride = bits(32, 14) << 4;
  std::uint32_t address = start;
  if (turned) {
    address += row / 64 * leading + row % 64 * 2 + k % 8 * kRowBytes + k / 8 * stride;
  } else {
    address += row / 8 * stride + row % 8 * kRowBytes + k * 2;
  }
  const char* from = at_address(swizzled(address));
  emulation::require_shared(from - reinterpret_cast<std::uintptr_t>(from) % 16, 16);
  std::uint16_t number;
  std::memcpy(&number, from, 2);
  // A fence between proxies (fence.proxy.async) would let it; no kernel needs one so far.
  const BlockState& block = this_block();
  if (!block.was_brought(static_cast<std::size_t>(from - emulation::launched_shared()), from, 2)) {
    throw std::logic_error("a product reads shared memory that threads wrote, not copies");
  }
  return number;
}

Words operand_numbers(std::uint64_t descriptor, bool turned, int first_row, int rows) {
  Words numbers(static_cast<std::size_t>(rows * kProductInputs));
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < kProductInputs; ++k) {
      numbers[static_cast<std::size_t>(row * kProductInputs + k)] =
          operand_number(descriptor, turned, first_row + row, k);
    }
  }
  return numbers;
}

float wide(std::uint16_t bits) { return __bfloat162float({bits}); }

// A warp's 16 rows of a and all columns of b.
struct Numbers {
  Words a, b;
};

struct Product {
  float* sums;
  int pairs;
  emulated::Operands operands;
  bool add;
  std::shared_ptr<const Numbers> numbers;  // as the product began
  std::vector<float> before;               // the sums then, of the first product that is under way on them
};

struct Products : emulation::UnderWay {
  std::vector<std::vector<Product>> groups{1};  // the last one is open
  // Sums that were waited for: a compiler may still read registers of before, until it is told.
  std::map<float*, std::vector<float>> unsettled;
  bool fenced = false;

  void check_end() const override {
    if (groups.size() > 1 || !groups.back().empty()) throw std::logic_error("a thread ends while it multiplies");
  }
  bool has(const float* sums) const {
    for (const auto& group : groups) {
      for (const Product& product : group) {
        if (product.sums == sums) return true;
      }
    }
    return false;
  }
  static std::vector<float> hide(const Product& product) {
    std::vector<float> hidden(product.sums, product.sums + 4 * product.pairs);
    std::fill_n(product.sums, 4 * product.pairs, std::numeric_limits<float>::quiet_NaN());
    return hidden;
  }
  void poison(Product& product) {
    settle(product.sums);
    product.before = hide(product);
  }
  // Sums that somebody has written since are others, in the same place.
  void settle(float* sums) {
    const auto found = unsettled.find(sums);
    if (found == unsettled.end()) return;
    const std::vector<float> hidden = std::move(found->second);
    unsettled.erase(found);
    const auto is_nan = [](float sum) { return std::isnan(sum); };
    if (std::all_of(sums, sums + hidden.size(), is_nan)) std::copy(hidden.begin(), hidden.end(), sums);
  }
};

Products& thread_products() {
  auto& state = emulation::thread_state();
  if (!state) state = std::make_unique<Products>();
  return static_cast<Products&>(*state);
}

int warp_of_thread() { return static_cast<int>(threadIdx.x) / kLanes; }

std::shared_ptr<Numbers> numbers_of(const Product& product, int warp) {
  auto numbers = std::make_shared<Numbers>();
  numbers->b = operand_numbers(product.operands.b, product.operands.b_turned, 0, 8 * product.pairs);
  if (product.operands.a_registers == nullptr) {
    numbers->a = operand_numbers(product.operands.a, false, warp % kWarps * 16, 16);
  }
  return numbers;
}

struct Beginning {
  Product product;
  Products* products;
  int warp;
};

// Calls take(place in `a`, number) for the numbers of a that a lane's registers hold.
template <typename Take>
void for_each_in_registers(const Product& product, int lane, Take take) {
  for (int i = 0; i < 8; ++i) {
    const int row = lane / 4 + i / 2 % 2 * 8, column = 2 * (lane % 4) + i / 4 * 8 + i % 2;
    take(static_cast<std::size_t>(row * kProductInputs + column),
         static_cast<std::uint16_t>(product.operands.a_registers[i / 2] >> (i % 2 * 16)));
  }
}

// All lanes of a warp.
void begin(void* const* lanes) {
  Beginning& first = *static_cast<Beginning*>(lanes[0]);
  const emulated::Operands& operands = first.product.operands;
  this_block().begin_product(first.warp, {operands.a, operands.b, operands.b_turned, first.product.pairs, 0});
  const auto numbers = numbers_of(first.product, first.warp);
  if (operands.a_registers != nullptr) {
    numbers->a.resize(16 * kProductInputs);
    for (int lane = 0; lane < kLanes; ++lane) {
      for_each_in_registers(static_cast<Beginning*>(lanes[lane])->product, lane,
                            [&](std::size_t at, std::uint16_t number) { numbers->a[at] = number; });
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    Beginning& given = *static_cast<Beginning*>(lanes[lane]);
    if (!given.products->fenced) throw std::logic_error("products begin without a fence");
    if (given.product.operands.b != operands.b || given.product.operands.a != operands.a) {
      throw std::logic_error("lanes of a warp multiply different operands");
    }
    given.product.numbers = numbers;
    if (!given.products->has(given.product.sums)) given.products->poison(given.product);
    given.products->groups.back().push_back(given.product);
  }
}

void add_to_sums(const Product& product, int lane) {
  for (int p = 0; p < product.pairs; ++p) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = 8 * p + 2 * (lane % 4) + i % 2;
      const std::uint16_t* a = &product.numbers->a[static_cast<std::size_t>(row * kProductInputs)];
      const std::uint16_t* b = &product.numbers->b[static_cast<std::size_t>(column * kProductInputs)];
      float& sum = product.sums[4 * p + i];
      double products[kProductInputs];
      for (int k = 0; k < kProductInputs; ++k) products[k] = static_cast<double>(wide(a[k])) * wide(b[k]);
      sum = emulation::add_on_tensor_core(product.add ? sum : 0.0f, products);
    }
  }
}

void end_group(void* const* lanes) {
  const auto at = [&](int lane) -> Beginning& { return *static_cast<Beginning*>(lanes[lane]); };
  const std::size_t count = at(0).products->groups.front().size();
  for (int lane = 0; lane < kLanes; ++lane) {
    auto& groups = at(lane).products->groups;
    if (groups.front().size() != count) throw std::logic_error("lanes of a warp wait for different products");
    for (std::size_t i = 0; i < count; ++i) {
      const Product& product = groups.front()[i];
      if (lane == 0) {
        const auto now = numbers_of(product, at(0).warp);
        const bool a_same = product.operands.a_registers != nullptr || now->a == product.numbers->a;
        if (!a_same || now->b != product.numbers->b) {
          throw std::logic_error("shared memory changed while a product read it");
        }
      }
      if (product.operands.a_registers != nullptr) {
        for_each_in_registers(product, lane, [&](std::size_t at, std::uint16_t number) {
          if (number != product.numbers->a[at]) throw std::logic_error("registers changed while a product read them");
        });
      }
      if (!product.before.empty()) std::copy(product.before.begin(), product.before.end(), product.sums);
      add_to_sums(product, lane);
    }
    const std::vector<Product> done = std::move(groups.front());
    groups.erase(groups.begin());
    // What is still under way on the same sums hides them again.
    for (auto& group : groups) {
      for (Product& later : group) {
        const bool hides =
            std::any_of(done.begin(), done.end(), [&](const Product& product) { return product.sums == later.sums; });
        if (hides && later.before.empty() && !std::isnan(later.sums[0])) at(lane).products->poison(later);
      }
    }
    Products& products = *at(lane).products;
    for (const Product& product : done) {
      if (!products.has(product.sums) && !products.unsettled.contains(product.sums)) {
        products.unsettled[product.sums] = Products::hide(product);
      }
    }
  }
}

}  // namespace

std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const char*>(p) - emulation::launched_shared()) + kSharedBase;
}

void init_barrier(std::uint64_t* barrier, int arrivals) {
  const Barrier state{static_cast<std::uint16_t>(arrivals), static_cast<std::uint16_t>(arrivals), 0, 0};
  std::memcpy(barrier, &state, sizeof state);
}

void arrive(std::uint64_t* barrier) { arrive_with(barrier, 0); }
void arrive_expecting(std::uint64_t* barrier, int bytes) { arrive_with(barrier, bytes); }

void wait_for_phase(std::uint64_t* barrier, int parity) {
  emulation::wait_until([=] { return static_cast<int>(read_barrier(barrier).phase) != parity; });
}

void copy_box(void* to, const CUtensorMap* map, int column, int row, std::uint64_t* barrier) {
  const std::uint32_t address = shared_address(to);
  const int bytes = static_cast<int>(map->box_rows) * kRowBytes;
  if (address % 1024 != 0) throw std::logic_error("a tile begins at no multiple of 1024 bytes");
  const auto size = static_cast<std::size_t>(bytes);
  const auto at = static_cast<std::size_t>(static_cast<char*>(to) - emulation::launched_shared());
  emulation::require_shared(to, size);
  std::memset(to, 0xFF, size);
  this_block().bring(at, static_cast<char*>(to), size);
  emulation::deliver([=, map = *map] {
    copy_rows(static_cast<char*>(to), address, map, column, row);
    this_block().bring(at, static_cast<char*>(to), size);
    Barrier state = read_barrier(barrier);
    state.bytes -= bytes;
    write_barrier(barrier, state);
  });
}

void begin_products() { thread_products().fenced = true; }

// A fence is for registers that were touched before it, so each group has one of its own.
void commit_products() {
  Products& products = thread_products();
  products.groups.emplace_back();
  products.fenced = false;
}

namespace emulated {

void begin_product(float* sums, int pairs, const Operands& operands, bool add) {
  Beginning beginning{{sums, pairs, operands, add, nullptr, {}}, &thread_products(), warp_of_thread()};
  emulation::run_in_warp(begin, &beginning);
}

void settle(float* sums) { thread_products().settle(sums); }

void wait_for_products(int pending) {
  Products& products = thread_products();
  while (static_cast<int>(products.groups.size()) - 1 > pending) {
    Beginning waiting{{}, &products, warp_of_thread()};
    emulation::run_in_warp(end_group, &waiting);
  }
  products.fenced = false;
}

}  // namespace emulated
}  // namespace tempora::device
