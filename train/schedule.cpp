// Constant, cosine and warm-up-stable-decay.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace modrwkv {

ScheduleKind parse_schedule(const std::string& name) {
  if (name == "constant") return ScheduleKind::constant;
  if (name == "cosine") return ScheduleKind::cosine;
  if (name == "wsd") return ScheduleKind::wsd;
  fail("schedule {}: expected constant, cosine or wsd", name);
}

int64_t decay_start(const Schedule& s) {
  if (s.kind == ScheduleKind::constant) return s.steps;
  if (s.kind == ScheduleKind::cosine) return s.warmup;
  return std::max(s.warmup, s.steps - int64_t(std::llround(s.decay_fraction * double(s.steps))));
}

double learning_rate(const Schedule& s, int64_t step) {
  require(step >= 0 && s.warmup >= 0, "schedule: step {} with {} steps of warm-up", step, s.warmup);
  require(s.decay_fraction >= 0 && s.decay_fraction <= 1, "schedule: decay fraction {}, expected 0 to 1",
          s.decay_fraction);
  if (step < s.warmup) return s.peak * double(step + 1) / double(s.warmup);
  const int64_t first = decay_start(s);
  if (s.kind == ScheduleKind::constant || step < first) return s.peak;
  const double x = step + 1 >= s.steps ? 1.0 : double(step + 1 - first) / double(s.steps - first);
  double shape;
  if (s.kind == ScheduleKind::cosine) {
    shape = 0.5 * (1 + std::cos(3.14159265358979323846 * x));
  } else {
    shape = 1 - (s.decay_shape == DecayShape::linear ? x : std::sqrt(x));
  }
  return s.peak * (s.final_fraction + (1 - s.final_fraction) * shape);
}

}  // namespace modrwkv
