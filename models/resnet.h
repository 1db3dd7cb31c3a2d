// SPDX-License-Identifier: Apache-2.0
// ResNet (He, Zhang, Ren, Sun: "Deep residual learning for image recognition", CVPR 2016) as torchvision has
// it: its tensor names (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, fc), its initial distributions,
// and in resnet50 the stride in a block's 3x3 convolution ("v1.5").
#pragma once

#include <string>
#include <vector>

#include "models/spec.h"

namespace lockstep {

std::vector<std::string> resnet_models();
// stem: "imagenet", a 7x7 convolution by 2 and max pooling by 2; or "cifar", a 3x3 convolution by 1 and no
// pooling, for images of some 32x32. fc gives the data's classes.
std::vector<LayerSpec> resnet_layers(const std::string& model, const std::string& stem);

}  // namespace lockstep
