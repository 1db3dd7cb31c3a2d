// SPDX-License-Identifier: Apache-2.0
// A diffusers folder: model_index.json, unet/ and scheduler/, as DDPMPipeline.from_pretrained takes it.
#pragma once

#include <string>

#include "models/diffusion/sampler.h"
#include "models/spec.h"
#include "runtime/training/model_state.h"

namespace lockstep::diffusion {

// Written into `folder` beside what is there, each file replaced atomically. Errors: cannot_create (73), io
// (74).
void write_folder(const std::string& folder, const UNet2DConfig& unet, const SchedulerConfig& scheduler,
                  const ModelState& weights);

}  // namespace lockstep::diffusion
