// Weights on their way from and to the host.
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "backend.h"
#include "gguf_host.h"
#include "nf4_host.h"

namespace tempora {
namespace {

// Host numbers as f32.
std::vector<float> widened(DType dtype, const std::uint8_t* numbers, std::size_t count) {
  std::vector<float> values(count);
  if (dtype == DType::f32) {
    std::memcpy(values.data(), numbers, count * 4);
    return values;
  }
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, numbers + 2 * i, 2);
    std::memcpy(&values[i], &bits, 4);
  }
  return values;
}

std::vector<std::uint8_t> narrowed(DType dtype, const std::vector<float>& values) {
  std::vector<std::uint8_t> bytes(values.size() * size_of(dtype));
  if (dtype == DType::f32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, &values[i], 4);
    const auto half = static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
    std::memcpy(bytes.data() + 2 * i, &half, 2);
  }
  return bytes;
}

}  // namespace

std::size_t weight_bytes(WeightFormat format, std::int64_t size) {
  if (format == WeightFormat::nf4) return Nf4Layout(size).bytes;
  if (is_gguf(format)) {
    const GgufBlock block = gguf_block(format);
    if (size % block.numbers != 0) throw std::invalid_argument("a row of quantised blocks ends within one");
    return static_cast<std::size_t>(size / block.numbers * block.bytes);
  }
  return static_cast<std::size_t>(size) * (format == WeightFormat::f32 ? 4 : 2);
}

int weight_block(WeightFormat format) { return gguf_block(format).numbers; }

bool Backend::set_weight(Weight& weight, DType dtype, const std::uint8_t* numbers) {
  const auto count = static_cast<std::size_t>(weight.size());
  if (is_gguf(weight.format)) throw std::invalid_argument("a weight of GGUF's blocks takes blocks, not numbers");
  weight.changed();
  if (!is_plain(weight.format)) {
    const std::vector<float> values = widened(dtype, numbers, count);
    for (const float value : values) {
      if (!std::isfinite(value)) return false;
    }
    const std::vector<std::uint8_t> storage = nf4_quantised(values);
    copy_in(weight.storage.data(), storage.data(), storage.size());
    return true;
  }
  const Matrix target = weight.values();
  if (dtype == target.dtype) {
    copy_in(target.data, numbers, count * size_of(dtype));
  } else {
    const Buffer staging = allocate(count * size_of(dtype), MemoryUse::workspace);
    copy_in(staging.data(), numbers, count * size_of(dtype));
    cast({staging.data(), dtype, target.rows, target.cols}, target);
  }
  return all_finite(target);
}

bool Backend::set_weight_blocks(Weight& weight, const std::uint8_t* blocks) {
  if (is_plain(weight.format)) throw std::invalid_argument("the weight is not held in blocks");
  weight.changed();
  const bool finite = is_gguf(weight.format) ? gguf_finite(weight.format, blocks, weight.storage.bytes())
                                             : nf4_finite(blocks, weight.size());
  if (!finite) return false;
  copy_in(weight.storage.data(), blocks, weight.storage.bytes());
  return true;
}

std::vector<std::uint8_t> Backend::get_weight(const Weight& weight, DType dtype) {
  std::vector<std::uint8_t> storage(weight.storage.bytes());
  copy_out(storage.data(), weight.storage.data(), storage.size());
  if (is_gguf(weight.format)) {
    return narrowed(dtype, gguf_dequantised(weight.format, storage.data(), weight.size()));
  }
  if (!is_plain(weight.format)) return narrowed(dtype, nf4_dequantised(storage.data(), weight.size()));
  if (weight.values().dtype == dtype) return storage;
  return narrowed(dtype, widened(weight.values().dtype, storage.data(), static_cast<std::size_t>(weight.size())));
}

}  // namespace tempora
