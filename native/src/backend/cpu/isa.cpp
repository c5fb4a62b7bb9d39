#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"
#include "tile_permission.h"

namespace tempora {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512bf16:
      return "avx512bf16";
    case Isa::amx:
      return "amx";
  }
  return "unknown";
}

bool isa_supported(Isa isa) {
  if (isa == Isa::baseline) return true;
#if TEMPORA_HAVE_X86_ISAS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == Isa::avx512) return avx512;
  const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  return isa == Isa::amx ? avx512bf16 && tiles_permitted() : avx512bf16;
#else
  return false;
#endif
}

namespace {

Isa best_isa() {
#if TEMPORA_HAVE_X86_ISAS
  if (isa_supported(Isa::amx)) return Isa::amx;
  // Intel's cores multiply by vdpbf16ps at half the rate of f32 multiply-adds, AMD's at twice.
  if (isa_supported(Isa::avx512bf16) && __builtin_cpu_is("amd")) return Isa::avx512bf16;
#endif
  if (isa_supported(Isa::avx512)) return Isa::avx512;
  if (isa_supported(Isa::avx2)) return Isa::avx2;
  return Isa::baseline;
}

}  // namespace

Isa choose_isa() {
  const char* wanted = std::getenv("TEMPORA_CPU_KERNELS");
  if (wanted == nullptr || *wanted == 0) return best_isa();
  for (int i = 0; i < kIsas; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa_name(isa) != std::string(wanted)) continue;
    if (isa_supported(isa)) return isa;
    throw std::invalid_argument(std::string("TEMPORA_CPU_KERNELS=") + wanted +
                                ": this CPU has no such instructions, or the system does not let this process use "
                                "them; unset it to choose automatically");
  }
  throw std::invalid_argument(std::string("TEMPORA_CPU_KERNELS=") + wanted +
                              ": not one of baseline, avx2, avx512, avx512bf16, amx");
}

}  // namespace tempora
