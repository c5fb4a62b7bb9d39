#include "tile_permission.h"

#if TEMPORA_HAVE_X86_ISAS && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tempora {

#if TEMPORA_HAVE_X86_ISAS && defined(__linux__)

namespace {

constexpr unsigned kLeafFeatures = 7, kTilesBit = 1u << 24, kTilesBf16Bit = 1u << 22;  // in EDX
// asm/prctl.h of Linux 5.16 and newer; older headers lack them.
constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr long kTileData = 18;               // the state component XTILEDATA

bool ask_for_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(kLeafFeatures, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTilesBit) == 0 || (d & kTilesBf16Bit) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool tiles_permitted() {
  static const bool permitted = ask_for_tiles();
  return permitted;
}

#else

bool tiles_permitted() { return false; }

#endif

}  // namespace tempora
