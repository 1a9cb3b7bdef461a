// Learning rates as pure functions of the step.
#pragma once
#include <cstdint>
#include <string>

namespace modrwkv {

enum class ScheduleKind { constant, cosine, wsd };
ScheduleKind parse_schedule(const std::string& name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 1e-3;
  int64_t steps = 1000;         // of the run
  int64_t warmup = 0;           // linear: peak / warmup, 2 peak / warmup, .. peak
  double final_fraction = 0.05; // last rate over the peak, of cosine and wsd
  double decay_fraction = 0.2;  // wsd: share of the steps in which the rate falls
};

// Rate of step 0, 1, .. steps - 1. After the warm-up:
//   constant  the peak
//   cosine    from the peak to final_fraction * peak, which the last step has
//   wsd       the peak until decay_fraction of the steps is left, then peak * (1 - (1 - final_fraction) * sqrt(x)), x rising to 1
//             with the last step (warm-up-stable-decay, arXiv 2405.18392). A run can go on from any step before the decay with more
//             steps: its rates until then do not depend on `steps`.
double learning_rate(const Schedule& schedule, int64_t step);

}  // namespace modrwkv
