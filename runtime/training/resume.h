// SPDX-License-Identifier: Apache-2.0
// Whether a resumed run is the run that its checkpoint was written by: its job and its data, key by key.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

// A key of the resolved job.
struct JobValue {
  std::string value;        // as YAML; "": left out, or belonging to another value of another key
  std::string fallback;     // what leaving it out means; "": nothing
  bool may_change = false;  // shapes no step, or what lies there is compared instead
  std::string where;        // its place in the job file, or that of what it is in
};
using JobValues = std::map<std::string, JobValue>;  // by path: hyperparameters.optimizer.lr, model.layers[2]

// What a run is made of, as its checkpoints keep it.
struct RunRecord {
  JobValues job;
  // By key (inputs.training), with the path for messages.
  struct Set {
    std::string path, content;  // SampleSource::content_hash
    std::vector<std::string> classes;
  };
  std::map<std::string, Set> sets;
  std::string init_from;  // hash of the weights it began with; "": fresh ones
};
RunRecord::Set set_record(const std::string& path, const SampleSource& set);
// meta.json's "job", "data" and "init_from".
void write_record(nlohmann::json& meta, const RunRecord& record);

struct Difference {
  std::string key, from, to;
};
// What differs and may not, by key. `meta` is a checkpoint's that write_record() has written into. Weights to start from
// that lie elsewhere are the same where their hash is: `hash_weights` is called where that must be known. Error data (65),
// naming `file` and the key, where what the checkpoint says is of another form.
std::vector<Difference> differences(const nlohmann::json& meta, const std::string& file, const RunRecord& now,
                                    const std::function<std::string()>& hash_weights);

// Whether `allowed` (--allow-change) names the key, or a map or list that it is in.
bool is_allowed(const std::string& key, const std::vector<std::string>& allowed);
// Error usage (64): a name that is neither a key nor a part of one, with the nearest.
void expect_keys(const std::vector<std::string>& allowed, const JobValues& job);
// Error config (78) with every difference that is not allowed.
void refuse_differences(const std::vector<Difference>& all, const std::vector<std::string>& allowed,
                        const JobValues& job, const std::string& checkpoint);

}  // namespace lockstep
