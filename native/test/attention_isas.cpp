// Apart from attention_reference.cpp, which also serves where there is no CPU backend.
#include <cstdlib>

#include "attention_reference.h"
#include "isas.h"

namespace tempora::attention_test {

void for_each_isa(const std::function<void(const std::string& isa)>& body) {
  for (const Isa isa : test::tested_isas()) {
    setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
    body(isa_name(isa));
  }
  unsetenv("TEMPORA_CPU_KERNELS");
}

}  // namespace tempora::attention_test
