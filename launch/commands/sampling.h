// SPDX-License-Identifier: Apache-2.0
// Drawing from a diffusion model: what `sample` and `evaluate --judge` share.
#pragma once

#include <boost/program_options.hpp>
#include <memory>
#include <string>
#include <vector>

#include "models/diffusion/generate.h"
#include "models/spec.h"
#include "runtime/comm/communicator.h"

namespace lockstep {

// What a run's job or a diffusers folder says; options come on top.
struct SamplingModel {
  std::string folder;
  UNet2DConfig unet;
  diffusion::SchedulerConfig scheduler;
  diffusion::GenerateRequest request;
  InputShape input;
  TrainingConfig config;
};
SamplingModel sampling_of_run(const std::string& folder);
// By its own files alone: whoever has the folder needs neither job nor data.
SamplingModel sampling_of_folder(const std::string& folder);

struct SamplingOptions {
  int64_t count = 0, steps = 0;
  double guidance = 0;
  std::string sampler, precision, compat;
  uint64_t seed = 0;

  boost::program_options::options_description description();  // parsing writes to this object
};
// Those of `vm` that were given. Throws Error: usage (64), config (78) for what the model cannot do.
// `command`: of the user's, for messages.
void apply(const std::string& command, const boost::program_options::variables_map& vm,
           const SamplingOptions& options, SamplingModel& model);
// So many images; of a model with classes, of each in turn.
void set_count(SamplingModel& model, int64_t count);

// Joins the ranks that a launcher started; one rank alone where there was none.
std::unique_ptr<Communicator> launched_communicator();
struct Drawn {
  std::vector<float> images;  // as diffusion::generate() gives them
  double seconds = 0;         // of this rank's steps alone, without loading and planning
};
// Loads the weights and draws model.request, on the CPU. Shows its progress on a terminal. Collective.
Drawn draw(const SamplingModel& model, Communicator& comm);

}  // namespace lockstep
