#pragma once

#include <cstdint>

namespace tempora::test {

// The emulated device runs threads in another order in each run, so that results which depend on the order differ. A
// real device does as it likes.
void use_schedule(int run);

// Of the emulated device, for the backends made from now on: without Hopper's own instructions it is an older one.
void use_hopper(bool there);

// What the emulated device must refuse. A real one takes it.
class TestRun;
void run_emulation_cases(TestRun& run);

// What a device does in a moment may take the emulation minutes.
bool device_is_emulated();

// While it lives, the emulated device has little memory: its memory is the machine's. A real one has what it has.
class SmallDevice {
 public:
  SmallDevice();
  ~SmallDevice();
  SmallDevice(const SmallDevice&) = delete;
  SmallDevice& operator=(const SmallDevice&) = delete;
};

// Graphs that the emulated device was asked to run so far; 0 on a real one.
std::int64_t graphs_launched();

// Kernels that ran on it so far, those of graphs too; 0 on a real one.
std::int64_t kernels_run();

}  // namespace tempora::test
