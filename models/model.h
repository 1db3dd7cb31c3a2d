// SPDX-License-Identifier: Apache-2.0
// From a model's description to a function that adds its nodes to a graph.
#pragma once

#include "models/spec.h"
#include "runtime/training/step_graph.h"

namespace lockstep {

// The function of layers_of(spec). At graph time the function throws Error(Exit::config, "E_SHAPE") naming
// the layer's index and name, its place in the job file and the shapes where they don't fit.
//
// Tensor names are PyTorch's: layer i of nn.Sequential is "i" unless it has a name; inside `residual` at i,
// "i.layers.j" and "i.shortcut.j". Initial values are drawn from PyTorch's default distributions, for a
// resnet from torchvision's.
ModelFunction make_model(const ModelSpec& spec);
// `spec.layers`, or those of the built-in model of that name. Throws Error(Exit::config) for an unknown one.
std::vector<LayerSpec> layers_of(const ModelSpec& spec);
// mnist_convnet and mnist_convnet_dropout: the nets of PyTorch's MNIST example (conv1, conv2[, fc1, fc2]);
// resnet18, resnet34 and resnet50 (resnet.h); unet2d, which is no list of layers.
std::vector<std::string> builtin_models();

}  // namespace lockstep
