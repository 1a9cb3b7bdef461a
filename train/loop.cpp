// One loop for all modalities.
#include "train/loop.h"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <optional>

#include "core/files.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/parallel.h"
#include "core/program.h"
#include "models/weights.h"
#include "ops/elementwise.h"
#include "ops/grad_norm.h"
#include "train/checkpoint.h"
#include "train/events.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace modrwkv {
namespace {

constexpr int kMostBadSteps = 5;  // in a row, with a loss or gradient that is not finite

volatile std::sig_atomic_t stop_signal = 0;

// SIGTERM and SIGUSR1 ask for a checkpoint and the end of the run; the previous handlers come back with the
// scope.
class StopSignals {
 public:
  StopSignals() {
    stop_signal = 0;
    struct sigaction action {};
    action.sa_handler = [](int signal) { stop_signal = signal; };
    sigaction(SIGTERM, &action, &term_);
    sigaction(SIGUSR1, &action, &usr1_);
  }
  ~StopSignals() {
    sigaction(SIGTERM, &term_, nullptr);
    sigaction(SIGUSR1, &usr1_, nullptr);
  }

 private:
  struct sigaction term_ {
  }, usr1_{};
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double item(const Tensor& t) {
  const Tensor x = t.to(kCpu);
  return x.dtype() == DType::f64 ? x.data<double>()[0] : double(x.to(DType::f32).data<float>()[0]);
}

OptimizerOptions optimizer_options(const LoopOptions& o) {
  return {o.beta1, o.beta2, o.eps, o.weight_decay, o.clip, o.average, o.w0_rate};
}

Schedule schedule_of(const LoopOptions& o, int64_t steps) {
  Schedule s;
  s.kind = parse_schedule(o.schedule);
  s.peak = o.lr;
  s.steps = steps;
  s.warmup = std::min(o.warmup, steps);
  s.final_fraction = o.final_lr;
  s.decay_fraction = o.decay_fraction;
  return s;
}

// What a run carries from step to step beside the optimiser's buffers.
struct Course {
  int64_t step = 0;  // steps done
  double best_score = INFINITY;
  int64_t best_step = 0, evaluations_since_best = 0;
  Json best = Json::object();
};

class Run {
 public:
  Run(const LoopOptions& options, Task& task, int64_t steps)
      : o_(options),
        task_(task),
        steps_(steps),
        micro_(options.micro_batch > 0 ? std::min(options.micro_batch, options.global_batch)
                                       : options.global_batch),
        optimizer_(task.model(), optimizer_options(options)) {}

  int64_t micro_batches() const { return o_.global_batch / micro_; }
  std::string checkpoints() const { return join_path(o_.out, "checkpoints"); }
  void start_data(int64_t step) { task_.start(step * micro_batches(), micro_); }

  struct Done {
    double loss = 0;
    Optimizer::Step step;
  };
  Done step(double rate);
  // Scores of the averaged weights (where they are kept); exports them when they are better than before or the
  // last are wanted.
  Json evaluate(Course& course);
  void save(const Course& course, double rate);
  bool load(Course& course);  // false: there is no checkpoint

 private:
  const LoopOptions& o_;
  Task& task_;
  int64_t steps_, micro_;
  Optimizer optimizer_;
};

Run::Done Run::step(double rate) {
  optimizer_.zero_grad();
  Done done;
  for (int64_t i = 0; i < micro_batches(); ++i) {
    Variable loss = task_.next_loss();
    if (micro_batches() > 1) loss = scale(loss, 1.0 / double(micro_batches()));
    backward(loss);
    done.loss += item(loss.value());
  }
  if (std::isfinite(done.loss)) {
    done.step = optimizer_.step(rate);
  } else {
    done.step = {NAN, false};
  }
  return done;
}

Json Run::evaluate(Course& c) {
  optimizer_.swap_average();
  const NoGrad scope;
  const Json scores = task_.validate();
  const double score = scores.members().front().second.as_double();
  const bool better = score < c.best_score;
  c.evaluations_since_best = better ? 0 : c.evaluations_since_best + 1;
  if (better) {
    c.best_score = score;
    c.best_step = c.step;
    c.best = Json(scores).set("step", c.step);
  }
  if (better || o_.which == "last") {
    std::vector<NamedTensor> tensors = task_.buffers();
    for (const Optimizer::Entry& e : optimizer_.entries()) {
      tensors.push_back({e.name, optimizer_.view(optimizer_.master(), e).to(kCpu), e.group});
    }
    write_model_file(join_path(o_.out, "model.h5"), "rwkv7", task_.config_json(), tensors, DType::f32);
  }
  optimizer_.swap_average();
  return scores;
}

void Run::save(const Course& c, double rate) {
  require(std::isfinite(grad_norm(optimizer_.master())),
          "{}: the weights are not finite after step {}; the last checkpoint is kept", o_.out, c.step);
  CheckpointData d;
  d.config_json = task_.config_json();
  d.train_json =
      Json::object().set("steps", steps_).set("global_batch", o_.global_batch).set("seed", o_.seed).canonical();
  TrainState& s = d.state;
  s.step = uint64_t(c.step);
  s.adam_step = uint64_t(optimizer_.steps_done());
  s.samples_seen = s.cursor = uint64_t(c.step * o_.global_batch);
  s.tokens_seen = s.samples_seen * uint64_t(task_.tokens_per_sample());
  s.global_batch = uint32_t(o_.global_batch);
  s.micro_batch = uint32_t(micro_);
  s.accum = uint32_t(micro_batches());
  s.lr = rate;
  s.best_metric = c.best_score;
  s.seed = s.philox_key = uint64_t(o_.seed);
  s.epoch_len = uint64_t(task_.samples_per_epoch());
  s.dataset_hash = task_.dataset_hash();
  s.shuffle = "uniform.v1";
  s.extra.emplace("best_step", c.best_step);
  s.extra.emplace("evaluations_since_best", c.evaluations_since_best);
  s.extra.emplace("best_scores", c.best.canonical());
  std::vector<std::pair<std::string, uint64_t>> counts;
  for (const Optimizer::Entry& e : optimizer_.entries()) counts.emplace_back(e.name, uint64_t(e.count));
  d.map = flat_map(counts);
  d.master = optimizer_.master().to(kCpu);
  d.m = optimizer_.first_moment().to(kCpu);
  d.v = optimizer_.second_moment().to(kCpu);
  if (optimizer_.average().defined()) d.ema = optimizer_.average().to(kCpu);
  save_checkpoint(checkpoints(), d);
  KeepRule keep;
  keep.last = int(o_.keep);
  remove_old_checkpoints(checkpoints(), keep);
}

bool Run::load(Course& c) {
  clean_checkpoints(checkpoints());
  const auto found =
      load_newest_checkpoint(checkpoints(), {}, [](const std::string& line) { warn("{}", line); });
  if (!found) return false;
  const std::string path = join_path(checkpoints(), checkpoint_name(found->state.step));
  std::vector<std::pair<std::string, uint64_t>> counts;
  for (const Optimizer::Entry& e : optimizer_.entries()) counts.emplace_back(e.name, uint64_t(e.count));
  require_same_model(path, *found, task_.config_json(), flat_map(counts));
  require(found->state.dataset_hash == task_.dataset_hash(), "{}: was trained on another data set than {}",
          path, o_.data);
  require(found->ema.defined() == optimizer_.average().defined(), "{}: {} averaged weights", path,
          found->ema.defined() ? "holds" : "holds no");
  optimizer_.master().copy_from(found->master);
  optimizer_.first_moment().copy_from(found->m);
  optimizer_.second_moment().copy_from(found->v);
  if (found->ema.defined()) optimizer_.average().copy_from(found->ema);
  optimizer_.restored(int64_t(found->state.adam_step));
  c.step = int64_t(found->state.step);
  c.best_score = found->state.best_metric;
  const auto number = [&](const char* key) { return std::get<int64_t>(found->state.extra.at(key).value); };
  c.best_step = number("best_step");
  c.evaluations_since_best = number("evaluations_since_best");
  c.best = Json::parse(std::get<std::string>(found->state.extra.at("best_scores").value), path);
  return true;
}

// A new folder, or with --resume one that an earlier run has left; writes nothing.
void check_run_folder(const LoopOptions& o, const std::function<void(const std::string&)>& check_resume) {
  const std::string file = join_path(o.out, "options.toml");
  if (o.resume && path_exists(file)) return check_resume(read_file(file));
  if (!is_directory(o.out)) return;
  for (const std::string& name : list_directory(o.out)) {
    require(name == ".lock",
            "{}: run folder is not empty; give --resume to go on with its run, or another --out", o.out);
  }
}

}  // namespace

Device prepare_device(const LoopOptions& o) {
  set_threads(int(o.threads));
  const Device device = parse_device(o.device);
  require(o.precision != "bf16" || device.is_cuda(),
          "--precision bf16 --device cpu: the CPU computes in fp32 and f64, bf16 is storage only there");
  require(o.precision != "f64" || !device.is_cuda(), "--precision f64: needs --device cpu");
  return device;
}

RunResult run_training(const LoopOptions& o, Task& task, const std::string& options_toml,
                       const std::function<void(const std::string& before)>& check_resume) {
  require(o.micro_batch == 0 || o.micro_batch >= o.global_batch || o.global_batch % o.micro_batch == 0,
          "--micro-batch {}: --global-batch {} is no multiple of it", o.micro_batch, o.global_batch);
  // An update divides by sqrt(v) + eps and by 1 - beta^t.
  require(o.eps > 0 && o.beta1 < 1 && o.beta2 < 1,
          "--eps {}, --beta1 {}, --beta2 {}: expected eps above 0, betas below 1", o.eps, o.beta1, o.beta2);
  require(!path_exists(o.out) || is_directory(o.out), "--out {}: is a file, expected a folder", o.out);
  check_run_folder(o, check_resume);  // before anything is left in it
  make_directories(o.out);
  const FolderLock lock(o.out);
  check_run_folder(o, check_resume);
  const int64_t steps =
      o.epochs > 0 ? std::max<int64_t>(
                         1, std::llround(o.epochs * double(task.samples_per_epoch()) / double(o.global_batch)))
                   : o.steps;
  const int64_t eval_every = o.eval_every > 0 ? o.eval_every : std::max<int64_t>(1, steps / 5);
  const int64_t save_every = o.checkpoint_every > 0 ? o.checkpoint_every : eval_every;
  Run run(o, task, steps);
  Course course;
  RunResult result;
  if (o.resume && !run.load(course)) note("{}: no checkpoint yet, starting at step 0", o.out);
  const auto out_of_patience = [&] { return o.patience > 0 && course.evaluations_since_best >= o.patience; };
  if (course.step >= steps || out_of_patience()) {
    note("{}: the run is finished, {} of {} steps are done", o.out, course.step, steps);
    result.steps = course.step;
    result.best = course.best;
    return result;
  }
  note("{}; {:.2f} TFLOP of matrix products in {} steps", task.summary(),
       3e-12 * task.flops_per_sample() * double(o.global_batch) * double(steps), steps);
  if (course.step > 0) note("{}: going on after step {}", o.out, course.step);
  write_file(join_path(o.out, "options.toml"), options_toml);
  const std::string metrics_file = join_path(o.out, "metrics.jsonl");
  MetricsWriter metrics =
      o.resume ? MetricsWriter::resume(metrics_file, course.step) : MetricsWriter::create(metrics_file);
  EventsWriter events(o.out, course.step);
  const auto record = [&](const Json& row) {
    metrics.write(row);
    events.write(row);
  };
  const Schedule schedule = schedule_of(o, steps);
  const double flops_per_step = 3 * task.flops_per_sample() * double(o.global_batch);
  run.start_data(course.step);
  const StopSignals signals;
  const double begin = seconds_now();
  Progress progress("train", steps, "steps", course.step);
  int bad_steps = 0;
  int64_t saved = course.step;
  double rate = 0;
  const auto save = [&] {
    metrics.sync();
    events.sync();
    run.save(course, rate);
    saved = course.step;
  };
  while (course.step < steps && stop_signal == 0 && !out_of_patience()) {
    const double start = seconds_now();
    rate = learning_rate(schedule, course.step);
    const Run::Done done = run.step(rate);
    ++course.step;
    const double seconds = seconds_now() - start;
    record(Json::object()
               .set("step", course.step)
               .set("loss", done.loss)
               .set("lr", rate)
               .set("grad_norm", done.step.grad_norm)
               .set("tokens_per_s", double(o.global_batch * task.tokens_per_sample()) / seconds)
               .set("seconds", seconds));
    if (done.step.applied) {
      bad_steps = 0;
    } else {
      warn("step {}: loss {} and gradient norm {} are not finite, the step is skipped", course.step, done.loss,
           done.step.grad_norm);
      require(++bad_steps < kMostBadSteps, "{}: {} steps in a row were not finite; the last checkpoint is kept",
              o.out, bad_steps);
    }
    std::string extra =
        fmt::format("loss {:.4f}  {:.1f} GFLOP/s", done.loss, progress.rate() * flops_per_step / 1e9);
    if (course.step % eval_every == 0 || course.step == steps) {
      const Json scores = run.evaluate(course);
      Json row = Json::object().set("step", course.step).set("eval", "validation");
      for (const auto& [key, value] : scores.members()) row.set(key, value);
      record(row);
      note("step {}: validation {}{}", course.step, scores.dump(),
           course.best_step == course.step ? " (best so far)" : "");
    }
    if (course.step % save_every == 0) save();
    progress.update(course.step, extra);
  }
  if (saved != course.step) save();  // whatever ended the loop
  progress.finish();
  result.seconds = seconds_now() - begin;
  result.steps = course.step;
  result.best = course.best;
  if (stop_signal != 0 && course.step < steps) {
    note("stopped by signal {} after step {}, saved; go on with --resume", int(stop_signal), course.step);
    result.exit_code = kStoppedBySignal;
  } else if (course.step < steps) {
    note("stopped early: no better score in {} evaluations, the best was at step {}", o.patience,
         course.best_step);
  }
  return result;
}

}  // namespace modrwkv
