// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/batch_norm_check.h"

#include <algorithm>

namespace lockstep {

std::string check_batch_norm(const Graph& forward, const Schedule& schedule) {
  const int64_t last = std::min(schedule.steps_per_epoch(), schedule.total_steps()) - 1;
  const auto alone = [&](int64_t step, const Shape& x) {
    return schedule.smallest_micro_batch(step) * x.elements_from(2) == 1;
  };
  std::string warning;
  for (const Node& n : forward.nodes()) {
    if (n.op != "batch_norm_stats") continue;
    const Shape& x = forward.value(n.in[0]).spec.shape;
    if (alone(0, x))
      throw Error(
          Exit::config, "E_BATCH_NORM",
          fmt::format("batch norm sees one value a channel, which has no variance: one sample of {}x{} "
                      "pixels in a {}batch",
                      x[2], x[3], schedule.micro_batches() > 1 ? "micro-" : ""))
          .at("layer", n.name)
          .hint("a larger global_batch_size, less gradient_accumulation, or group_norm instead");
    if (warning.empty() && alone(last, x))
      warning = fmt::format(
          "the last batch of an epoch gives the batch norm \"{}\" one value a channel, which has no "
          "variance: the "
          "layer's output is a constant then, and its running_var stays as it is; "
          "hyperparameters.drop_last: true leaves that batch out",
          n.name);
  }
  return warning;
}

}  // namespace lockstep
