// Learning rates as pure functions of the step: nothing is kept, so a resumed run goes on with the same rates.
#pragma once
#include <cstdint>
#include <string>

namespace modrwkv {

enum class ScheduleKind { constant, cosine, wsd };
enum class DecayShape { one_minus_sqrt, linear };      // of wsd: 1 - sqrt(x), 1 - x
ScheduleKind parse_schedule(const std::string& name);  // "constant", "cosine", "wsd"

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 1e-3;
  int64_t steps = 1000;          // of the run
  int64_t warmup = 0;            // steps with a rising rate
  double final_fraction = 0.05;  // last rate over the peak, of cosine and wsd
  double decay_fraction = 0.2;   // wsd: share of the steps with a falling rate
  DecayShape decay_shape = DecayShape::one_minus_sqrt;
};

// The rate of step 0, 1, .. steps - 1; after the end it stays. With f = final_fraction:
//   warm-up   peak (step + 1) / warmup for step < warmup: peak / warmup first, the peak at step warmup - 1
//   constant  the peak
//   cosine    peak (f + (1 - f) (1 + cos(pi x)) / 2), x = (step + 1 - warmup) / (steps - warmup): f * peak at
//   the last step wsd       (warm-up, stable, decay; arXiv 2405.18392) the peak until decay_start, then peak (f
//   + (1 - f) shape(x)),
//             x = (step + 1 - decay_start) / (steps - decay_start): f * peak at the last step
double learning_rate(const Schedule& schedule, int64_t step);

// The first step with a falling rate: steps - round(decay_fraction * steps), not before the warm-up's end. Up
// to here the rates of wsd do not depend on `steps`: a checkpoint from before it can be taken up by a longer
// run.
int64_t decay_start(const Schedule& schedule);

}  // namespace modrwkv
