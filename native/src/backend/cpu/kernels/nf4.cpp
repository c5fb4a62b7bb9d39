#include "../../nf4.h"

#include "nf4.h"
#include "simd.h"

namespace tempora::TEMPORA_ISA {
namespace {

template <typename T>
void dequantise(const Nf4View& view, std::int64_t begin, std::int64_t end, void* data) {
  T* to = static_cast<T*>(data);
  while (begin < end) {
    const std::int64_t block = begin / kNf4Block;
    const std::int64_t stop = (block + 1) * kNf4Block < end ? (block + 1) * kNf4Block : end;
    const float largest = view.map[view.maxima[block]] * view.scales[block / kNf4MaximaBlock] + view.offset;
    T values[16];
    for (int code = 0; code < 16; ++code) store_one(values + code, kNf4Values[code] * largest);
    if (begin % 2 != 0) {
      *to++ = values[view.codes[begin / 2] & 15];
      ++begin;
    }
    for (; begin + 2 <= stop; begin += 2, to += 2) {
      const std::uint8_t pair = view.codes[begin / 2];
      to[0] = values[pair >> 4];
      to[1] = values[pair & 15];
    }
    if (begin < stop) {
      *to++ = values[view.codes[begin / 2] >> 4];
      ++begin;
    }
  }
}

}  // namespace

const Nf4Kernels nf4_kernels = {{dequantise<float>, dequantise<Bf16>}};

}  // namespace tempora::TEMPORA_ISA
