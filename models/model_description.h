// SPDX-License-Identifier: Apache-2.0
// What a trained model says of itself: all that is needed to use it, without its job and its data.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "models/diffusion/sampler.h"
#include "models/spec.h"
#include "runtime/data/dataset.h"
#include "runtime/training/config.h"
#include "runtime/training/objective.h"

namespace lockstep {

// How it is sampled from where nothing else is said.
struct SamplingDefaults {
  std::string sampler = "ddim";
  int64_t steps = 50;
  double eta = 0, guidance = 1;
  int64_t count = 16;
  std::vector<std::string> prompts = {};  // of a model that reads text; empty: it is told nothing
};

struct ModelDescription {
  ModelSpec model;
  InputShape input;  // without augment; `classes` counts those that have names or numbers, not "no class"
  ImageFit fit;      // pictures are fitted so ...
  Extent window;     // ... and then the middle of this size is taken; not given: all
  // In the order of their numbers; empty: it knows no classes, or nobody said their names.
  std::vector<std::string> class_names;
  // The objective, `loss`, `precision`, the seed and the batch of an evaluation; nothing else of it is used.
  TrainingConfig config;
  diffusion::SchedulerConfig scheduler;  // of a diffusion model
  SamplingDefaults sampling;
  std::string program;                      // the version that trained it; empty: not known
  std::string dataset;                      // the kind of data set that it saw: mnist, image_folder, ...
  std::map<std::string, std::string> data;  // content hashes of training, validation, test, tokenizer

  bool diffusion() const { return config.diffusion.has_value(); }
  // Whether its answers depend on a class.
  bool conditional() const { return !diffusion() || (!model.reads_text() && model.unet.conditional()); }
  // Whether it was trained to answer without one, under the number input.classes.
  bool no_class_row() const { return diffusion() && config.diffusion->label_dropout > 0; }
  // "class 3", or its name.
  std::string class_text(int64_t number) const {
    return number < static_cast<int64_t>(class_names.size()) ? class_names[static_cast<size_t>(number)]
                                                             : std::to_string(number);
  }
  // Of what is drawn step by step, {channels, height, width}: pixels, or latents that become pictures at the end.
  std::array<int64_t, 3> drawn_shape() const {
    const auto& vae = model.text_to_image.vae;
    if (!model.draws_latents()) return {input.channels, input.height, input.width};
    return {vae->latent_channels(), input.height / vae->scale(), input.width / vae->scale()};
  }
  // What load_dataset() holds images against.
  DatasetShape data_shape() const {
    return {0, input.channels, input.height, input.width, input.classes, class_names, {}};
  }
};

}  // namespace lockstep
