// SPDX-License-Identifier: Apache-2.0
// What a checkpoint's meta.json says of the state that training goes on from, beside the tensors.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "runtime/training/early_stop.h"

namespace lockstep {

struct SavedState {
  int64_t step = 0, batches_tracked = 0, samples_seen = 0;
  double seconds = 0, training_seconds = 0;
  std::map<std::string, std::string> kernels;  // by signature
  bool bit_exact = false;
  std::optional<double> best;
  std::string best_folder;
  std::optional<EarlyStop::State> stop;
  nlohmann::json changes;  // a list: what was allowed to change when the run was resumed
  std::string init_from;
};
// `file`: for errors. Error data (65), naming file and key, where a key is missing or of another type.
SavedState saved_state(const nlohmann::json& meta, const std::string& file);

}  // namespace lockstep
