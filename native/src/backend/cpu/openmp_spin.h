// How long OpenMP's threads wait for each other by spinning.
#pragma once

namespace tempora {

// Makes libgomp's threads give up their core after microseconds of waiting instead of milliseconds. Idempotent.
void shorten_openmp_spin();

}  // namespace tempora
