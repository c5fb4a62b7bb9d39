// Kernels are compiled once for each instruction set and chosen at run time.
//
// A group of kernels is a struct of function pointers, declared in a header of its own with
// TEMPORA_DECLARE_KERNELS(NormKernels, norm_kernels); its .cpp is compiled once per instruction set and defines
//   namespace tempora::TEMPORA_ISA { const NormKernels norm_kernels = {...}; }
// Callers take `norm_kernels_for(isa)`. Files compiled this way include no standard library header but <cstddef>,
// <cstdint>, and define everything in namespace TEMPORA_ISA: an inline function shared with other files could be
// linked in its AVX-512 copy and crash an older CPU. (Those of forest/random.h are static for that reason.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempora {

// avx512bf16 is avx512 with the bf16 dot product (vdpbf16ps); amx is that with tiles (TEMPORA_TILES).
enum class Isa : std::uint8_t { baseline, avx2, avx512, avx512bf16, amx };
constexpr int kIsas = 5;

const char* isa_name(Isa isa);
bool isa_supported(Isa isa);
// The best for this CPU, or what the environment variable TEMPORA_CPU_KERNELS names; throws std::invalid_argument
// where that is unknown or not supported by this CPU.
Isa choose_isa();

}  // namespace tempora

#if TEMPORA_HAVE_X86_ISAS
#define TEMPORA_DECLARE_KERNELS(Table, name)                 \
  namespace baseline {                                       \
  extern const Table name;                                   \
  }                                                          \
  namespace avx2 {                                           \
  extern const Table name;                                   \
  }                                                          \
  namespace avx512 {                                         \
  extern const Table name;                                   \
  }                                                          \
  namespace avx512bf16 {                                     \
  extern const Table name;                                   \
  }                                                          \
  namespace amx {                                            \
  extern const Table name;                                   \
  }                                                          \
  [[maybe_unused]] static const Table& name##_for(Isa isa) { \
    switch (isa) {                                           \
      case Isa::avx2:                                        \
        return avx2::name;                                   \
      case Isa::avx512:                                      \
        return avx512::name;                                 \
      case Isa::avx512bf16:                                  \
        return avx512bf16::name;                             \
      case Isa::amx:                                         \
        return amx::name;                                    \
      case Isa::baseline:                                    \
        break;                                               \
    }                                                        \
    return baseline::name;                                   \
  }
#else
#define TEMPORA_DECLARE_KERNELS(Table, name) \
  namespace baseline {                       \
  extern const Table name;                   \
  }                                          \
  [[maybe_unused]] static const Table& name##_for(Isa) { return baseline::name; }
#endif
