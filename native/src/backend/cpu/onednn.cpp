#include "onednn.h"

#include <list>
#include <map>
#include <stdexcept>

#include "dnnl.hpp"

namespace tempora {
namespace {

using dnnl::memory;

dnnl::engine& cpu_engine() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::data_type type_of(DType dtype) {
  return dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc describe(std::int64_t rows, std::int64_t cols, DType dtype, std::int64_t row, bool transposed) {
  return transposed ? memory::desc({rows, cols}, type_of(dtype), memory::dims{1, row})
                    : memory::desc({rows, cols}, type_of(dtype), memory::dims{row, 1});
}

struct Compiled {
  memory::desc a, b, c, scratch;
  dnnl::matmul primitive;
};

Compiled compile(const Product& p) {
  Compiled compiled;
  compiled.a = describe(p.m, p.k, p.in, p.row_a, p.transpose_a);
  compiled.b = describe(p.k, p.n, p.in, p.row_b, p.transpose_b);
  compiled.c = describe(p.m, p.n, p.out, p.row_c, false);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (p.accumulate) {
    dnnl::post_ops operations;
    operations.append_sum(1.0f);
    attributes.set_post_ops(operations);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc description(cpu_engine(), compiled.a, compiled.b, compiled.c, attributes);
#else
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(compiled.a, compiled.b, compiled.c), attributes,
                                                 cpu_engine());
#endif
  compiled.scratch = description.scratchpad_desc();
  compiled.primitive = dnnl::matmul(description);
  return compiled;
}

}  // namespace

struct ProductCache::Impl {
  // Batches of every length come by; an entry is a few kilobytes of code.
  static constexpr std::size_t kMost = 512;

  const Compiled& find(const Product& product) {
    const auto found = entries.find(product);
    if (found != entries.end()) {
      recent.splice(recent.begin(), recent, found->second);
      return recent.front().second;
    }
    recent.emplace_front(product, compile(product));
    entries[product] = recent.begin();
    if (recent.size() > kMost) {
      entries.erase(recent.back().first);
      recent.pop_back();
    }
    return recent.front().second;
  }

  std::list<std::pair<Product, Compiled>> recent;
  std::map<Product, std::list<std::pair<Product, Compiled>>::iterator> entries;
  dnnl::stream stream{cpu_engine()};
};

ProductCache::ProductCache() : impl_(std::make_unique<Impl>()) {}
ProductCache::~ProductCache() = default;

void ProductCache::run(Backend& backend, const Product& product, const void* a, const void* b, void* c) {
  try {
    const Compiled& compiled = impl_->find(product);
    dnnl::engine& engine = cpu_engine();
    const Buffer scratch = backend.allocate(compiled.scratch.get_size(), MemoryUse::workspace);
    compiled.primitive.execute(impl_->stream,
                               {{DNNL_ARG_SRC, memory(compiled.a, engine, const_cast<void*>(a))},
                                {DNNL_ARG_WEIGHTS, memory(compiled.b, engine, const_cast<void*>(b))},
                                {DNNL_ARG_DST, memory(compiled.c, engine, c)},
                                {DNNL_ARG_SCRATCHPAD, memory(compiled.scratch, engine, scratch.data())}});
    impl_->stream.wait();
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw OutOfMemory("oneDNN had no memory for a matrix product");
    throw std::runtime_error("oneDNN failed on a product of " + std::to_string(product.m) + "×" +
                             std::to_string(product.k) + " and " + std::to_string(product.k) + "×" +
                             std::to_string(product.n) + ": " + error.what());
  }
}

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
}

bool onednn_has_native_bf16() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_bf16:
    case dnnl::cpu_isa::avx512_core_amx:
#if DNNL_VERSION_MAJOR >= 3
    case dnnl::cpu_isa::avx512_core_fp16:
    case dnnl::cpu_isa::avx512_core_amx_fp16:
#endif
      return true;
    default:
      return false;
  }
}

}  // namespace tempora
