#include "backend/cpu/tile_permission.h"
#include "isas.h"

namespace tempora {

bool tiles_permitted() { return true; }

namespace test {

std::vector<Isa> tested_isas() {
  if (isa_supported(Isa::amx)) return {Isa::amx};
  return {};
}

}  // namespace test

}  // namespace tempora
