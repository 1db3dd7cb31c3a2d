// SPDX-License-Identifier: Apache-2.0
// What a trained model's programs run when they are asked: for `plan FOLDER`.
#pragma once

#include <string>
#include <vector>

#include "models/model_description.h"
#include "runtime/graph/plan.h"

namespace lockstep {

struct ProgramPlan {
  std::string name;
  Plan plan;
  int64_t parameters = 0;  // of the networks that it computes with
};

// For so many samples, in the model's order. Kernels are chosen as an inference session chooses them; on a GPU, where they are
// timed when the program first runs, these are the first that accept.
std::vector<ProgramPlan> plan_programs(const ModelDescription& model, int64_t samples, Device device);

}  // namespace lockstep
