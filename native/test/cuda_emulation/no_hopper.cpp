#include "backend/cuda/hopper_product.h"

namespace tempora {

std::unique_ptr<HopperProduct> HopperProduct::make() { return nullptr; }

}  // namespace tempora
