// SPDX-License-Identifier: Apache-2.0
// What a job's hyperparameters come to in the step's graph: optimizer segments, flat arrays, the parts of a batch.
#include <fnmatch.h>

#include <algorithm>
#include <bit>

#include "runtime/training/step_graph.h"

namespace lockstep {

Recompute recompute_of(const TrainingConfig& config, int64_t flat_bytes) {
  Recompute r;
  if (config.recompute == "blocks") r.mode = Recompute::Mode::blocks;
  if (config.recompute == "auto") r.mode = Recompute::Mode::automatic;
  r.arena_bytes = static_cast<int64_t>(config.memory_budget_mb * 1e6) - flat_bytes;
  return r;
}

ParameterTable parameter_table(const Objective* objective, const std::vector<Program>& programs,
                               const GraphSpec& spec, const TrainingConfig& config) {
  ParameterTable table;
  table.trained = config.trained;
  if (objective) {
    add_parameters(table, build_forward(forward_of(*objective), spec, true).graph);
    for (const Program& p : objective->encoders())
      add_parameters(table, build_forward(p.forward, spec, false).graph);
  }
  for (const Program& p : programs) add_parameters(table, build_forward(p.forward, spec, false).graph);
  return table;
}

ModelArrays model_arrays(const TrainingConfig& config, const ParameterTable& table, int ranks) {
  const OptimizerParams p = optimizer_params(config, table);
  int partial_sums = 0;
  for (int64_t m = 0; m < micro_batches(config, ranks); ++m)
    partial_sums = std::max(partial_sums, micro_batch_options(config, ranks, m).store);
  return {.partial_sums = partial_sums, .state = p.state_count(), .ema = p.ema, .half = p.half};
}

TrainingGraphOptions micro_batch_options(const TrainingConfig& config, int ranks, int64_t m) {
  TrainingGraphOptions o;
  const auto done = static_cast<uint64_t>(m);
  o.finish = m + 1 == micro_batches(config, ranks);
  if (!config.shards) {
    o.add = m > 0 ? 1 : 0;
    return o;
  }
  // Arrays that hold a sum now are the binary digits of m. The last micro-batch takes them all.
  const int carried = std::countr_one(done);
  o.add = o.finish ? done : (uint64_t{1} << carried) - 1;
  o.store = o.finish ? 0 : carried;
  return o;
}

DType activation_dtype(const TrainingConfig& config) {
  return config.precision == "bf16" ? DType::bf16 : DType::f32;
}

OptimizerParams optimizer_params(const TrainingConfig& config, const ParameterTable& table) {
  const auto& o = config.optimizer;
  OptimizerParams p;
  p.kind = o.name == "adam"    ? OptimizerParams::Kind::adam
           : o.name == "adamw" ? OptimizerParams::Kind::adamw
                               : OptimizerParams::Kind::sgd;
  p.momentum = o.momentum;
  p.dampening = o.dampening;
  p.nesterov = o.nesterov;
  p.beta1 = o.beta1;
  p.beta2 = o.beta2;
  p.eps = o.eps;
  p.clip_norm = config.clip_grad_norm;
  p.ema = config.ema.decay.has_value();
  p.half = activation_dtype(config) == DType::bf16;
  std::vector<bool> used(config.param_groups.size(), false);
  for (const auto& e : table.parameters) {
    if (!table.trains(e)) continue;
    OptimizerSegment s{e.begin, e.end(), 1, o.weight_decay, false};
    for (size_t i = 0; i < config.param_groups.size(); ++i) {
      const auto& group = config.param_groups[i];
      if (fnmatch(group.match.c_str(), e.name.c_str(), 0) != 0) continue;
      used[i] = true;
      s.lr_scale = group.lr_scale;
      if (group.weight_decay) s.weight_decay = *group.weight_decay;
      s.frozen = group.frozen;
      break;
    }
    p.segments.push_back(s);
  }
  for (size_t i = 0; i < used.size(); ++i)
    if (!used[i]) {
      std::string names;
      for (const auto& e : table.parameters)
        if (table.trains(e)) names += (names.empty() ? "" : ", ") + e.name;
      throw Error(Exit::config, "E_PARAM_GROUP",
                  fmt::format("param_groups: '{}' decides for no tensor{}", config.param_groups[i].match,
                              table.trained.empty() ? "" : " that is trained"))
          .at("job", config.param_groups[i].where)
          .hint("these are " + names);
    }
  return p;
}

}  // namespace lockstep
