#include "isas.h"

#include <cstdio>

namespace tempora::test {

namespace {

std::vector<Isa> find_isas() {
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

}  // namespace

std::vector<Isa> tested_isas() {
  static const std::vector<Isa> isas = find_isas();
  return isas;
}

}  // namespace tempora::test
