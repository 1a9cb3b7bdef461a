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

double learning_rate(const Schedule& s, int64_t step) {
  if (step < s.warmup) return s.peak * double(step + 1) / double(s.warmup);
  // x runs from 0 to 1 over the falling part, 1 at the last step.
  const auto falling = [&](int64_t first) { return std::clamp(double(step - first + 1) / double(std::max<int64_t>(1, s.steps - first)), 0.0, 1.0); };
  switch (s.kind) {
    case ScheduleKind::constant: break;
    case ScheduleKind::cosine: {
      const double x = falling(s.warmup);
      return s.peak * (s.final_fraction + (1 - s.final_fraction) * 0.5 * (1 + std::cos(3.14159265358979323846 * x)));
    }
    case ScheduleKind::wsd: {
      const int64_t first = std::max(s.warmup, s.steps - int64_t(std::llround(s.decay_fraction * double(s.steps))));
      if (step >= first) return s.peak * (1 - (1 - s.final_fraction) * std::sqrt(falling(first)));
      break;
    }
  }
  return s.peak;
}

}  // namespace modrwkv
