// SPDX-License-Identifier: Apache-2.0
// Drawing from a diffusion model: what `sample` and `evaluate --judge` share.
#pragma once

#include <boost/program_options.hpp>
#include <memory>
#include <string>
#include <vector>

#include "launch/job/trained_model.h"
#include "models/diffusion/generate.h"

namespace lockstep {

// What a diffusion model says of itself; options come on top.
struct SamplingModel {
  TrainedModel trained;
  diffusion::GenerateRequest request;
  ModelDescription& description() { return trained.description; }
  const ModelDescription& description() const { return trained.description; }
};
// Error config (78) for a classifier.
SamplingModel open_sampling_model(const std::string& folder, bool say);

struct SamplingOptions {
  int64_t count = 0, steps = 0;
  double guidance = 0;
  std::string sampler, precision, compat;
  int64_t seed = 0;

  boost::program_options::options_description description();  // parsing writes to this object
};
// Those of `vm` that were given. Throws Error: usage (64), config (78) for what the model cannot do.
// `command`: of the user's, for messages.
void apply(const std::string& command, const boost::program_options::variables_map& vm,
           const SamplingOptions& options, SamplingModel& model);
// Throws what the sampler cannot do with the model's schedule, naming the model's folder.
void expect_sampler(const SamplingModel& model);
// So many images; of a model with classes, of each in turn.
void set_count(SamplingModel& model, int64_t count);

struct Drawn {
  std::vector<float> images;  // as diffusion::generate() gives them
  double seconds = 0;         // of texts, steps and pictures, without loading and planning
};
// Draws model.request, on the CPU. Shows its progress on a terminal. Collective.
Drawn draw(const SamplingModel& model, Communicator& comm);

}  // namespace lockstep
