// AdamW over flat buffers: parameters, gradients, moments and averaged weights of a model each live in one
// buffer, in the order of their names, every parameter padded to a multiple of 64 elements. The model's
// Variables become views of them.
#pragma once
#include <string>
#include <vector>

#include "models/module.h"

namespace modrwkv {

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-8;
  double weight_decay =
      0.01;           // of matrices and convolution weights; vectors, biases and low-rank pairs have none
  double clip = 1.0;  // of the global gradient norm; 0: off
  double average =
      0;  // decay of the averaged weights, min(average, (t + 1) / (t + 10)) at step t; 0: none are kept
  double w0_rate = 1.0;  // learning rate of att.w0 over that of the rest (2 in RWKV's own recipe)
};

// The group of a parameter, found by its name: 0 decay, 1 no decay, 2 att.w0.
int parameter_group(const std::string& name, const Shape& shape);

class Optimizer {
 public:
  // The parameters keep their device; bf16 parameters get f32 masters, f32 and f64 ones are their own.
  Optimizer(Module& model, const OptimizerOptions& options);

  struct Step {
    double grad_norm = 0;  // before clipping
    bool applied = true;   // false: the norm is not finite and nothing was changed
  };
  Step step(double learning_rate);
  void zero_grad();
  int64_t steps_done() const { return steps_; }

  // Exchanges the trained weights with the averaged ones (and back); nothing happens without `average`.
  void swap_average();

  // What a checkpoint holds. Tensors are the live buffers; master, m, v (and average, where kept) are f32 or
  // f64.
  struct Entry {
    std::string name;
    Shape shape;
    int64_t first = 0, count = 0;  // elements of the flat buffers, without padding
    int group = 0;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  Tensor& master() { return master_; }
  Tensor& first_moment() { return m_; }
  Tensor& second_moment() { return v_; }
  Tensor& average() { return average_; }  // undefined when not kept
  // After the buffers were overwritten: brings the compute weights up to date.
  void restored(int64_t steps_done);
  Tensor view(const Tensor& flat, const Entry& e) const;  // a parameter's part of a buffer

 private:
  void refresh_weights();

  OptimizerOptions options_;
  std::vector<Parameter> parameters_;
  std::vector<Entry> entries_;
  Tensor master_, m_, v_, grad_, average_, weights_, group_of_block_;  // weights_: bf16 copy, or master_ itself
  int64_t steps_ = 0;
};

}  // namespace modrwkv
