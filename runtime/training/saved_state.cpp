// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/saved_state.h"

#include "runtime/files/json_value.h"

namespace lockstep {

SavedState saved_state(const nlohmann::json& meta, const std::string& file) {
  const auto get = [&]<class T>(const char* key, T& field) { field = json_get<T>(meta, key, file); };
  SavedState s;
  get("step", s.step);
  get("batches_tracked", s.batches_tracked);
  get("samples_seen", s.samples_seen);
  get("seconds", s.seconds);
  get("training_seconds", s.training_seconds);
  get("kernels", s.kernels);
  get("bit_exact", s.bit_exact);
  if (meta.contains("best")) {
    s.best = json_get<double>(meta, "best", file);
    get("best_folder", s.best_folder);
  }
  if (meta.contains("stop"))
    s.stop = EarlyStop::read_state(json_get<nlohmann::json::object_t>(meta, "stop", file), file);
  s.changes = json_get_or(meta, "changes", nlohmann::json::array_t(), file);
  s.init_from = json_get_or<std::string>(meta, "init_from", "", file);
  return s;
}

}  // namespace lockstep
