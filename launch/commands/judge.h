// SPDX-License-Identifier: Apache-2.0
// `lockstep evaluate RUN --judge RUN2`: what a classifier makes of a diffusion model's samples.
#pragma once

#include <boost/program_options.hpp>
#include <string>

#include "launch/commands/sampling.h"
#include "launch/commands/split.h"

namespace lockstep {

struct JudgeRequest {
  std::string run, judge;  // folders of the diffusion model and the classifier
  DataChoice data;         // the real images
  SamplingOptions sampling;
  bool json = false;
};

// Draws over the ranks that a launcher started, lets rank 0 read, and prints. `vm`: which of the sampling
// options were given. The exit code.
int judge_samples(const JudgeRequest& request, const boost::program_options::variables_map& vm);

}  // namespace lockstep
