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
  std::string verdicts;  // file that gets what was asked and read, a JSON object a picture; empty: none
};

// Draws over the ranks that a launcher started, lets rank 0 read, and prints. `vm`: which of the sampling
// options were given. The exit code.
int judge_samples(const JudgeRequest& request, const boost::program_options::variables_map& vm);

// The same of a model of captioned digits, which is asked for scenes of pairs that it was shown and, as many, of pairs that
// were held back (judge_scenes.cpp). Collective. Prints on rank 0.
void judge_drawn_scenes(const JudgeRequest& request, SamplingModel& model, Communicator& comm);

}  // namespace lockstep
