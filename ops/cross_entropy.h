// Cross entropy of class scores: loss = 1/n sum over counted rows of (log sum_i exp(logits_i) - logits_label).
// logits [.., V], labels i32 [..]: a negative label (-100 by habit) does not count; n is the number of the
// others. With n = 0 the loss and its gradient are 0. The loss is [1], f32 (f64 for f64 logits). f32, f64
// (CPU), f32, bf16 (CUDA); computed in fp32 (f64 for f64), summed in an order that does not depend on timing or
// threads. Saves the logits and one log-sum-exp a row. Gradient: logits, (softmax - one-hot) / n, in the
// logits' type. A label >= V is refused on the CPU; on CUDA, where nobody can look without waiting, it makes
// the loss and the row's gradient NaN.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable cross_entropy(const Variable& logits, const Tensor& labels);

namespace cuda {
// lse f32 [rows]; loss and inverse_count (1/n, or 0) f32 [1].
MODRWKV_LAUNCHER void cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& lse,
                                            Tensor& loss, Tensor& inverse_count);
MODRWKV_LAUNCHER void cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                             const Tensor& lse, const Tensor& inverse_count, Tensor& dlogits);
}  // namespace cuda

}  // namespace modrwkv
