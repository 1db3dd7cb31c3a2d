// SPDX-License-Identifier: Apache-2.0
// Classification losses and log-softmax.
//
// Op                        inputs                            outputs
//   log_softmax             x [N, C]                          y [N, C] = x - log sum exp x     (max-shifted)
//   log_softmax_grad        y, dy                             dx = dy - exp(y) * sum dy
//     (these two take NoParams, the others LossParams)
//   cross_entropy           x [N, C], labels [N] i32 plain    metrics [2] f32: sum of losses, correct count
//   cross_entropy_grad      x, labels, step_state             dx = (softmax(x) - target) / global_samples
// Losses per sample, with label smoothing e:
//   target = (1-e) onehot + e/C;  loss = -sum target * log_softmax(x)
// from_log_probs (PyTorch's NLLLoss): x already holds log-probabilities:
//   loss = -sum target * x;  dx = -target / global_samples
// Terms whose target is 0 are left out of a loss, so that their log-probability may be -inf.
// correct: argmax x == label, the first of equal maxima; never where an x of the sample is NaN. The loss sum
// covers this rank's N samples, carried in double; dividing by the global count is left to whoever has the
// global sum. global_samples comes from StepState. Padding lanes of dx are 0. x, y, dx, dy share one layout
// (plain or lanes). Labels are checked when the data is loaded; here they are in [0, C).
#pragma once

#include <fmt/format.h>

#include <string>

namespace lockstep {

struct LossParams {
  float label_smoothing = 0;
  bool from_log_probs = false;
  std::string text() const {
    return fmt::format("smoothing={} from_log_probs={}", label_smoothing, from_log_probs);
  }
};

}  // namespace lockstep
