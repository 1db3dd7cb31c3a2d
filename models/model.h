// SPDX-License-Identifier: Apache-2.0
// From what a job says of a model to what is trained and what is asked.
#pragma once

#include "models/objectives/classification.h"
#include "models/spec.h"

namespace lockstep {

// Null for a model that draws latents where `trained` names no network, or its VAE has no posterior to train on: it is asked
// and not trained.
std::shared_ptr<const Objective> make_objective(const ModelSpec& spec, const InputShape& input,
                                                const TrainingConfig& config);
// What it answers once it is trained (models/objectives/).
std::vector<Program> make_programs(const ModelSpec& spec, const InputShape& input,
                                   const TrainingConfig& config);

// The network of layers_of(spec). At graph time the function throws Error(Exit::config, "E_SHAPE") naming
// the layer's index and name, its place in the job file and the shapes where they don't fit.
//
// Tensor names are PyTorch's: layer i of nn.Sequential is "i" unless it has a name; inside `residual` at i,
// "i.layers.j" and "i.shortcut.j". Initial values are drawn from PyTorch's default distributions, for a
// resnet from torchvision's.
Classifier make_classifier(const ModelSpec& spec, int64_t classes);
// `spec.layers`, or those of the built-in model of that name. Throws Error(Exit::config) for an unknown one.
std::vector<LayerSpec> layers_of(const ModelSpec& spec);
// mnist_convnet and mnist_convnet_dropout: the nets of PyTorch's MNIST example (conv1, conv2[, fc1, fc2]);
// resnet18, resnet34 and resnet50 (resnet.h); unet2d and text_to_image, which are no lists of layers.
std::vector<std::string> builtin_models();

}  // namespace lockstep
