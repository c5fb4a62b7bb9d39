// The table of a trajectory, which other devices are held against, is what every instruction set computes.
// loss_trajectory_test --write makes it again.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "isas.h"
#include "loss_trajectory.h"
#include "test_support.h"

namespace tempora::test {
namespace {

Trajectory trajectory_by(Isa isa, DType dtype, int threads) {
  setenv("TEMPORA_CPU_KERNELS", isa_name(isa), 1);
  return run_trajectory(dtype, false, threads);
}

KnownTrajectory made_here(DType dtype) {
  KnownTrajectory made{trajectory_by(Isa::baseline, dtype, 1), {}};
  for (const Isa isa : tested_isas()) {
    const Distance apart = distance_of(trajectory_by(isa, dtype, 1), made.trajectory);
    made.noise.losses = std::max(made.noise.losses, apart.losses);
    made.noise.log_probs = std::max(made.noise.log_probs, apart.log_probs);
  }
  return made;
}

// Were it level, nothing that training does would be seen in it.
void check_falling(DType dtype) {
  const std::vector<double> losses = known_trajectory(dtype).trajectory.losses;
  for (std::size_t i = 1; i < losses.size(); ++i) expect(losses[i] < losses[i - 1], "a loss is no lower than before");
  expect(losses.back() < losses.front() / 20, "the losses hardly fall");
}

}  // namespace
}  // namespace tempora::test

int main(int argc, char** argv) {
  using namespace tempora;
  using namespace tempora::test;
  if (argc == 2 && std::string(argv[1]) == "--write") {
    write_known_trajectories("native/test/loss_trajectory.txt", made_here(DType::f32), made_here(DType::bf16));
    return 0;
  }
  TestRun run(argc, argv);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const std::string type = dtype == DType::f32 ? "f32" : "bf16";
    run.run("the losses fall, " + type, [&] { check_falling(dtype); });
    for (const Isa isa : tested_isas()) {
      for (const int threads : {1, 3}) {
        run.run(std::string(isa_name(isa)) + " on " + std::to_string(threads) + " threads trains as the table says, " +
                    type,
                [&] { expect_known_trajectory(trajectory_by(isa, dtype, threads), dtype); });
      }
    }
  }
  return run.finish();
}
