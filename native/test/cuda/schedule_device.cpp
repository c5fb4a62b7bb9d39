#include "schedule.h"

namespace tempora::test {

void use_schedule(int) {}
void use_hopper(bool) {}
bool device_is_emulated() { return false; }
SmallDevice::SmallDevice() = default;
SmallDevice::~SmallDevice() = default;

}  // namespace tempora::test
