// SPDX-License-Identifier: Apache-2.0
// A diffusers folder: model_index.json, unet/ and scheduler/, as DDPMPipeline.from_pretrained takes it; of a model that
// reads text its text_encoder/ and tokenizer/, too.
#pragma once

#include <string>

#include "models/diffusion/sampler.h"
#include "models/spec.h"

namespace lockstep::diffusion {

// The files of a folder that say what the model is; its weights: find_weights() of runtime/checkpoint/find_weights.h.
struct FolderFiles {
  std::string unet_config, scheduler_config;                              // paths; empty where there is none
  std::string text_encoder_config = {}, vae_config = {}, tokenizer = {};  // of a pipeline that reads text
};
// In unet/ and scheduler/, else at the folder's root, as repositories of one model have them; the others in text_encoder/,
// vae/ and tokenizer/.
// Errors: no_permission (77), io (74).
FolderFiles find_files(const std::string& folder);
// The same where both are there. Errors: no_input (66) with the folder and the names that were looked for.
FolderFiles expect_files(const std::string& folder);

// All but weights and tokenizer, written into `folder` beside what is there, each file replaced atomically. Errors:
// cannot_create (73), io (74).
void write_configuration(const std::string& folder, const ModelSpec& model, const SchedulerConfig& scheduler);

}  // namespace lockstep::diffusion
