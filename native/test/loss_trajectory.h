// A tiny model through thirty DPO steps: the losses, and the log-probs that it ends with, on any device against what
// the CPU backend's plainest kernels left in loss_trajectory.txt.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"

namespace tempora::test {

struct Trajectory {
  std::vector<double> losses;     // of each step
  std::vector<double> log_probs;  // of each scored token after the last one
};

Trajectory run_trajectory(DType dtype, bool cuda, int threads);

// How far one lies from another.
struct Distance {
  double losses = 0;     // the largest of a step, in parts of its loss
  double log_probs = 0;  // root mean square
};
Distance distance_of(const Trajectory& one, const Trajectory& other);

// In the file. The noise is how far from the table instruction sets lie that add the same numbers in other orders: what
// is beyond kNoises times as far computes something else.
struct KnownTrajectory {
  Trajectory trajectory;
  Distance noise;
};
constexpr double kNoises = 4;

KnownTrajectory known_trajectory(DType dtype);
void write_known_trajectories(const std::string& path, const KnownTrajectory& f32, const KnownTrajectory& bf16);
void expect_known_trajectory(const Trajectory& trajectory, DType dtype);

}  // namespace tempora::test
