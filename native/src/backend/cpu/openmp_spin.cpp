#include "openmp_spin.h"

#include <omp.h>

#include <atomic>
#include <semaphore>
#include <thread>

namespace tempora {
namespace {

void hold_threads() {
  std::atomic<int> members = 0;  // an empty region would be optimised away
#pragma omp parallel num_threads(3)
  members.fetch_add(1);
  static std::binary_semaphore never(0);
  never.acquire();
}

}  // namespace

// libgomp spins some 300,000 rounds at a barrier before it sleeps: milliseconds in which a thread that waits takes the
// core from the one it waits for, or from the JavaScript thread. On a machine that does anything else besides, a small
// step becomes a hundred times slower. The setting for it (GOMP_SPINCOUNT) is read when the library is loaded, before
// any code of ours. But libgomp spins 1,000 rounds only while it manages more threads than there are cores
// (config/linux/wait.h, do_spin); so a thread with a small team is parked for the life of the process.
void shorten_openmp_spin() {
  [[maybe_unused]] static const bool parked = [] {
    std::thread(hold_threads).detach();
    return true;
  }();
}

}  // namespace tempora
