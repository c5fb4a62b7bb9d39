#include "quantised.h"

#include <cstring>

#include "../dynamic_map.h"
#include "../gguf_blocks.h"
#include "../nf4.h"
#include "kernels/gguf.h"
#include "kernels/nf4.h"
#include "views.h"

namespace tempora {

void dequantise_rows(Isa isa, const Weight& weight, std::int64_t first, std::int64_t count, DType dtype, void* to) {
  require(!is_plain(weight.format), "dequantise: the weight is quantised");
  if (is_gguf(weight.format)) {
    gguf_kernels_for(isa).dequantise[index_of(dtype)](
        weight.format, static_cast<const std::uint8_t*>(weight.storage.data()), first * weight.cols / kGgufGroup,
        count * weight.cols / kGgufGroup, to);
    return;
  }
  const Nf4Layout layout(weight.size());
  const auto* storage = static_cast<const std::uint8_t*>(weight.storage.data());
  Nf4View view{storage, storage + layout.maxima,     reinterpret_cast<const float*>(storage + layout.scales),
               0,       signed_dynamic_map().values, weight.size()};
  std::memcpy(&view.offset, storage + layout.offset, sizeof view.offset);
  nf4_kernels_for(isa).dequantise[index_of(dtype)](view, first * weight.cols, (first + count) * weight.cols, to);
}

}  // namespace tempora
