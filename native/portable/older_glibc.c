/*
 * What a static libstdc++ and libgcc of a newer GNU C library ask of it, in terms of one that is older: linked into the
 * addon that is packed for others, never into one that is built where it runs. Each stands for the function of that
 * name in glibc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/random.h>

#define LOCAL __attribute__((visibility("hidden")))

/* glibc 2.32. 0: there may be other threads, so that reference counts are changed atomically. */
LOCAL char __libc_single_threaded = 0;

/* glibc 2.36. Only std::random_device asks. */
LOCAL uint32_t arc4random(void) {
  uint32_t value = 0;
  while (getrandom(&value, sizeof value, 0) != sizeof value) {
  }
  return value;
}

/* glibc 2.35: the module that holds an address, and its table of frames, for the unwinder of exceptions. */
struct search {
  uintptr_t address;
  struct dl_find_object *found;
};

static int look(struct dl_phdr_info *module, size_t size, void *data) {
  (void)size;
  struct search *search = data;
  int inside = 0;
  uintptr_t low = UINTPTR_MAX, high = 0, frames = 0;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr) *segment = &module->dlpi_phdr[i];
    const uintptr_t begin = module->dlpi_addr + segment->p_vaddr;
    if (segment->p_type == PT_GNU_EH_FRAME) frames = begin;
    if (segment->p_type != PT_LOAD) continue;
    const uintptr_t end = begin + segment->p_memsz;
    if (search->address >= begin && search->address < end) inside = 1;
    if (begin < low) low = begin;
    if (end > high) high = end;
  }
  if (!inside || frames == 0) return 0;
  *search->found = (struct dl_find_object){
      .dlfo_map_start = (void *)low, .dlfo_map_end = (void *)high, .dlfo_eh_frame = (void *)frames};
  return 1;
}

LOCAL int _dl_find_object(void *address, struct dl_find_object *result) {
  struct search search = {(uintptr_t)address, result};
  return dl_iterate_phdr(look, &search) == 1 ? 0 : -1;
}
