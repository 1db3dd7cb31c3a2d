// SPDX-License-Identifier: Apache-2.0
// scheduler/scheduler_config.json of a diffusers folder.
#pragma once

#include <string>
#include <string_view>

#include "models/diffusion/sampler.h"

namespace lockstep::diffusion {

struct SchedulerFile {
  std::string diffusers_class;  // "DDPMScheduler"
  std::string
      sampler;  // ours of that class ("ddpm"), or empty: a class whose config ours can use all the same
  SchedulerConfig config;
};

// Reads a scheduler's file for any of our samplers, as `from_config` does: keys that the file leaves out have
// the defaults of the sampler in use. Keys that only the steps of other schedulers know (solver_p) and
// names that begin with '_' are passed over; options that we don't implement go to config.refused. Errors:
// no_input (66); data (65) for what is no JSON object with a _class_name; config (78) for a class, key, type
// or value that is unknown.
SchedulerFile read_scheduler_config(const std::string& path);
SchedulerFile parse_scheduler_config(std::string_view text, const std::string& path);  // path: for messages

// What diffusers needs to make that sampler's class (see sampler_names) with this config. sigmoid is written
// as trained_betas beside its name, since DDPMScheduler alone knows the name and every class prefers
// trained_betas.
std::string scheduler_config_text(const std::string& sampler, const SchedulerConfig& config);
// The same into a file, all at once. Errors: cannot_create (73), io (74).
void write_scheduler_config(const std::string& path, const std::string& sampler,
                            const SchedulerConfig& config);

}  // namespace lockstep::diffusion
