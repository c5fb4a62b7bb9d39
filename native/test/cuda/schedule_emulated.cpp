#include <cuda_runtime.h>

#include "schedule.h"

namespace tempora::test {

void use_schedule(int run) {
  using emulation::Schedule;
  constexpr Schedule schedules[] = {Schedule::ascending, Schedule::descending, Schedule::shuffled};
  emulation::set_schedule(schedules[run % 3]);
}

void use_hopper(bool there) { emulation::set_capability(there ? 9 : 8, 0); }

bool device_is_emulated() { return true; }
std::int64_t kernels_run() { return static_cast<std::int64_t>(emulation::kernels_run()); }
std::int64_t graphs_launched() { return static_cast<std::int64_t>(emulation::graph_launches()); }

SmallDevice::SmallDevice() { emulation::set_device_bytes(std::size_t{512} << 20); }
SmallDevice::~SmallDevice() { emulation::set_device_bytes(std::size_t{8} << 30); }

}  // namespace tempora::test
