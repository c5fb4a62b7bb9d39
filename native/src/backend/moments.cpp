// The layouts of moments that all backends share, and their way to the host and back.
//   f32      m f32 [n], then v
//   bf16     m bf16 [n], then v
//   blocks8  codes of the dynamic maps u8 [n] of m, then of v; scales f32 [blocks] of m, then of v: a block of 256 is
//   its
//            codes' values times its scale, the largest magnitude in it
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "backend.h"
#include "dynamic_map.h"

namespace tempora {
namespace {

std::size_t element_bytes(MomentsFormat format) {
  return format == MomentsFormat::f32 ? 4 : format == MomentsFormat::bf16 ? 2 : 1;
}

// Half of the data, that of m or of v in 16 or 8 bits, as f32.
void widen(MomentsFormat format, const std::uint8_t* data, const float* scales, const DynamicMap& map,
           std::vector<float>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (format == MomentsFormat::blocks8) {
      to[i] = map.values[data[i]] * scales[i / kMomentsBlock];
      continue;
    }
    std::uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, data + 2 * i, 2);
    std::memcpy(&to[i], &bits, 4);
  }
}

float largest_magnitude(const std::vector<float>& values, std::size_t block) {
  float largest = 0;
  const std::size_t end = std::min(values.size(), (block + 1) * kMomentsBlock);
  for (std::size_t i = block * kMomentsBlock; i < end; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

void narrow(MomentsFormat format, const std::vector<float>& values, const float* scales, const DynamicMap& map,
            std::uint8_t* to) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (format == MomentsFormat::bf16) {
      std::uint32_t bits;
      std::memcpy(&bits, &values[i], 4);
      const auto half = static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
      std::memcpy(to + 2 * i, &half, 2);
    } else {
      const float scale = scales[i / kMomentsBlock];
      to[i] = map.code_of(scale == 0 ? 0.0f : values[i] / scale);
    }
  }
}

}  // namespace

std::int64_t moments_blocks(const Moments& moments) {
  return moments.format == MomentsFormat::blocks8 ? (moments.size + kMomentsBlock - 1) / kMomentsBlock : 0;
}

Moments Backend::make_moments(MomentsFormat format, std::int64_t size) {
  Moments moments;
  moments.format = format == MomentsFormat::blocks8 && size < kSmallestBlocks8 ? MomentsFormat::f32 : format;
  moments.size = size;
  const auto count = static_cast<std::size_t>(size);
  const auto blocks = static_cast<std::size_t>(moments_blocks(moments));
  moments.data = allocate(2 * count * element_bytes(moments.format), MemoryUse::optimizer);
  if (blocks > 0) moments.scales = allocate(2 * blocks * sizeof(float), MemoryUse::optimizer);
  if (blocks == 0) {
    zero(moments.data.data(), moments.data.bytes());
    return moments;
  }
  std::vector<std::uint8_t> codes(2 * count, signed_dynamic_map().code_of(0));
  std::fill(codes.begin() + static_cast<std::ptrdiff_t>(count), codes.end(), unsigned_dynamic_map().code_of(0));
  copy_in(moments.data.data(), codes.data(), codes.size());
  zero(moments.scales.data(), moments.scales.bytes());
  return moments;
}

HostMoments Backend::get_moments(const Moments& moments) {
  const auto count = static_cast<std::size_t>(moments.size);
  const auto blocks = static_cast<std::size_t>(moments_blocks(moments));
  HostMoments host{std::vector<float>(count), std::vector<float>(count), std::vector<float>(blocks),
                   std::vector<float>(blocks)};
  if (moments.format == MomentsFormat::f32) {
    // As they are: of a large embedding a copy on the way would be gigabytes.
    const float* numbers = static_cast<const float*>(moments.data.data());
    copy_out(host.first.data(), numbers, count * sizeof(float));
    copy_out(host.second.data(), numbers + count, count * sizeof(float));
    return host;
  }
  std::vector<std::uint8_t> data(moments.data.bytes());
  copy_out(data.data(), moments.data.data(), data.size());
  if (blocks > 0) {
    const float* scales = static_cast<const float*>(moments.scales.data());
    copy_out(host.first_scales.data(), scales, blocks * sizeof(float));
    copy_out(host.second_scales.data(), scales + blocks, blocks * sizeof(float));
  }
  widen(moments.format, data.data(), host.first_scales.data(), signed_dynamic_map(), host.first);
  widen(moments.format, data.data() + data.size() / 2, host.second_scales.data(), unsigned_dynamic_map(), host.second);
  return host;
}

void Backend::set_moments(Moments& moments, const HostMoments& host) {
  const auto count = static_cast<std::size_t>(moments.size);
  const auto blocks = static_cast<std::size_t>(moments_blocks(moments));
  const bool with_scales = !host.first_scales.empty() || !host.second_scales.empty();
  if (host.first.size() != count || host.second.size() != count ||
      (with_scales && (host.first_scales.size() != blocks || host.second_scales.size() != blocks))) {
    throw std::invalid_argument("the moments have the wrong size");
  }
  if (moments.format == MomentsFormat::f32) {
    float* numbers = static_cast<float*>(moments.data.data());
    copy_in(numbers, host.first.data(), count * sizeof(float));
    copy_in(numbers + count, host.second.data(), count * sizeof(float));
    return;
  }
  std::vector<float> scales(2 * blocks);
  for (std::size_t block = 0; block < blocks; ++block) {
    scales[block] = with_scales ? host.first_scales[block] : largest_magnitude(host.first, block);
    scales[blocks + block] = with_scales ? host.second_scales[block] : largest_magnitude(host.second, block);
  }
  std::vector<std::uint8_t> data(moments.data.bytes());
  narrow(moments.format, host.first, scales.data(), signed_dynamic_map(), data.data());
  narrow(moments.format, host.second, scales.data() + blocks, unsigned_dynamic_map(), data.data() + data.size() / 2);
  copy_in(moments.data.data(), data.data(), data.size());
  if (blocks > 0) copy_in(moments.scales.data(), scales.data(), scales.size() * sizeof(float));
}

}  // namespace tempora
