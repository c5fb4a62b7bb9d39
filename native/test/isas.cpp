#include "isas.h"

#include <cstdio>

namespace tempora::test {

std::vector<Isa> tested_isas() {
  std::vector<Isa> isas;
  for (int i = 0; i < kIsas; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa_supported(isa)) {
      isas.push_back(isa);
    } else {
      std::printf("this CPU has no %s\n", isa_name(isa));
    }
  }
  return isas;
}

}  // namespace tempora::test
