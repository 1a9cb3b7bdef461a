// The training loop of every modality: micro-batches, clipping, AdamW, schedule, evaluation, checkpoints,
// resume.
//
// Interrupted anywhere (SIGTERM, SIGUSR1, SIGKILL, power) and started again with --resume, a run gives the same
// losses and weights bit for bit: samples, augmentation and schedule are functions of the step alone, and a
// checkpoint holds the rest.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/options.h"
#include "models/module.h"

namespace modrwkv {

struct LoopOptions {
  std::string data, out, init, precision = "fp32", schedule = "cosine", device = "cpu", which = "best";
  bool resume = false;
  int64_t steps = 1000, global_batch = 64, micro_batch = 0, warmup = 50, seed = 0, threads = 0;
  int64_t checkpoint_every = 0, keep = 3, eval_every = 0, patience = 0;
  double epochs = 0, lr = 2e-3, final_lr = 0.05, decay_fraction = 0.2;
  double weight_decay = 0.01, clip = 1.0, average = 0.98, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, w0_rate = 1.0;

  template <class V>
  void fields(V& v) {
    v.group("run");
    v("data", data, "packed data set, made by import", Required{}, Resumable{});
    v("out", out, "run folder; one that is not empty is refused without --resume", Required{}, Resumable{});
    v("resume", resume, "go on from the newest checkpoint in --out", Resumable{});
    v("init", init, "start from the weights of this model file or run folder");
    v("device", device, "cpu, cuda or cuda:N");
    v("threads", threads, "CPU threads, 0: all cores", Range{0, 4096}, Resumable{});
    v("precision", precision, "bf16 keeps fp32 master weights and needs CUDA; f64 needs the CPU",
      Choices{"fp32", "bf16", "f64"});
    v("seed", seed, "of initialisation, sampling and augmentation", AtLeast{0});
    v("checkpoint-every", checkpoint_every, "steps between checkpoints, 0: with every evaluation", AtLeast{0},
      Resumable{});
    v("keep", keep, "checkpoints to keep", Range{1, 1000}, Resumable{});
    v("eval-every", eval_every, "steps between evaluations, 0: five in a run", AtLeast{0}, Resumable{});
    v("patience", patience, "stop after so many evaluations without a better score, 0: never", AtLeast{0},
      Resumable{});
    v("which", which, "weights to export: the best by validation, or the last", Choices{"best", "last"},
      Resumable{});
    v.group("optimisation");
    v("steps", steps, "optimiser steps", AtLeast{1}, Resumable{});
    v("epochs", epochs, "passes over the training windows instead of --steps, 0: use --steps", Range{0, 1e6},
      Resumable{});
    v("global-batch", global_batch, "samples of a step", Range{1, 1 << 24});
    v("micro-batch", micro_batch, "samples computed at once, at most; 0: all", Range{0, 1 << 24}, Resumable{});
    v("lr", lr, "peak learning rate", Range{0, 10});
    v("schedule", schedule, "course of the learning rate after the warm-up",
      Choices{"constant", "cosine", "wsd"});
    v("warmup", warmup, "steps of linear warm-up", AtLeast{0});
    v("final-lr", final_lr, "cosine and wsd: last learning rate over the peak", Range{0, 1});
    v("decay-fraction", decay_fraction, "wsd: share of the steps that the decay takes", Range{0, 1});
    v("weight-decay", weight_decay, "of matrices and convolution weights", Range{0, 10});
    v("clip", clip, "largest global gradient norm, 0: off", Range{0, 1e9});
    v("average", average, "decay of the averaged weights, which are validated and exported; 0: off",
      Range{0, 1});
    v("beta1", beta1, "AdamW", Range{0, 1});
    v("beta2", beta2, "AdamW", Range{0, 1});
    v("eps", eps, "AdamW", Range{0, 1});
    v("w0-rate", w0_rate, "learning rate of att.w0 over that of the rest", Range{0, 100});
  }
};

// What a modality gives to the loop.
class Task {
 public:
  virtual ~Task() = default;
  virtual Module& model() = 0;
  virtual std::string config_json() const = 0;  // of the model, for model files and checkpoints
  virtual std::string summary() const = 0;      // one line about model and data, told when the run starts
  virtual uint64_t dataset_hash() const = 0;
  virtual int64_t samples_per_epoch() const = 0;
  virtual double flops_per_sample() const = 0;  // forward pass, matrix products
  virtual int64_t tokens_per_sample() const = 0;

  // Batches of `size` samples are asked for in order from number `first` on; sample k of a run is the same
  // whatever the batch.
  virtual void start(int64_t first_batch, int64_t size) = 0;
  virtual Variable next_loss() = 0;  // mean loss of the next batch
  // Scores of the current weights on the validation part; the first one is to be minimised.
  virtual Json validate() = 0;
  // What is exported beside the weights, computed with the current ones.
  virtual std::vector<NamedTensor> buffers() { return {}; }
};

// Sets the thread count, refuses what the device cannot do, and returns it.
Device prepare_device(const LoopOptions& options);

struct RunResult {
  int exit_code = 0;           // kDone or kStoppedBySignal
  int64_t steps = 0;           // done in total
  Json best = Json::object();  // scores of the best evaluation, with its step
  double seconds = 0;          // of training
};

// Runs (or resumes) the loop in options.out. `options_toml` is the whole effective configuration, written to
// options.toml; `check_resume` gets the text of an earlier one and throws when the two do not fit together.
RunResult run_training(const LoopOptions& options, Task& task, const std::string& options_toml,
                       const std::function<void(const std::string& before)>& check_resume);

// The check that every trainer passes: differences in fields that are not Resumable are refused by name.
template <class Options>
void refuse_changed_options(const Options& now, const std::string& before_toml, const std::string& file) {
  std::string changed;
  for (const OptionDifference& d : option_differences(options_from_toml<Options>(before_toml, file), now)) {
    if (!d.resumable && changed.empty())
      changed = "--" + d.key + " is " + d.after + ", the run was started with " + d.before;
  }
  if (!changed.empty()) throw Error("--resume: " + changed + " (" + file + ")");
}

}  // namespace modrwkv
