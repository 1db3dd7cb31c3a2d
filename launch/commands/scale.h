// SPDX-License-Identifier: Apache-2.0
// `lockstep plan JOB --scale ... --link ...`: a step on rank counts that this machine lacks.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/commands/job_plan.h"
#include "runtime/training/scaling.h"

namespace lockstep {

struct ScaleRequest {
  std::vector<int64_t> ranks;  // in the order given
  LinkSpeed link;
  int ranks_per_host = 1;
};
// scale: "2,8,64"; link: "100Gb,5us[,8]": bits (Gb, Mb) or bytes (GB, MB) a second, of 10^9 or 10^6; latency
// in ns, us or ms; ranks a host. Throws Error usage (64) that names the word which is wrong.
ScaleRequest parse_scale_request(const std::string& scale, const std::string& link);

struct Scaling {
  ScaleRequest request;
  int64_t samples_per_rank = 0, timed_steps = 0;
  ScalingInput input;
  std::vector<ScalingPoint> points;
};
// Times the ops of a step, and what sharing a host costs, on this machine. Throws Error config (78) where the
// job's device isn't the CPU.
Scaling predict_scaling(const Job& job, const JobPlan& plan, const ScaleRequest& request);

nlohmann::json to_json(const Scaling& scaling);
std::string to_text(const Scaling& scaling);

}  // namespace lockstep
