// What the compiler calls before an access at an address that is not aligned to the type of what is read or written
// there (-fsanitize=alignment). A device ends the kernel; a processor may not even notice.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cuda_runtime.h"

namespace {

// As the compiler lays it out.
struct Mismatch {
  const char* file;
  std::uint32_t line, column;
  const void* type;
  unsigned char alignment_bits, kind;
};

}  // namespace

// NOLINTNEXTLINE(bugprone-reserved-identifier): the compiler's name
extern "C" void __ubsan_handle_type_mismatch_v1(const Mismatch* mismatch, std::uintptr_t address) {
  const std::string message = std::string(mismatch->file) + ":" + std::to_string(mismatch->line) +
                              ": an access that wants multiples of " + std::to_string(1 << mismatch->alignment_bits) +
                              " bytes, at one of " + std::to_string(address & (~address + 1));
  tempora::emulation::fail(message);
  std::fprintf(stderr, "outside of a kernel: %s\n", message.c_str());
  std::abort();
}
