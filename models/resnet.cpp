// SPDX-License-Identifier: Apache-2.0
#include "models/resnet.h"

#include <map>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

struct Depth {
  bool bottleneck;
  int64_t blocks[4];  // of layer1 .. layer4
};
const std::map<std::string, Depth> kDepths = {{"resnet18", {false, {2, 2, 2, 2}}},
                                              {"resnet34", {false, {3, 4, 6, 3}}},
                                              {"resnet50", {true, {3, 4, 6, 3}}}};

LayerSpec conv(std::string name, int64_t out, int64_t kernel, int64_t stride) {
  layer::Conv2d c;
  c.out_channels = out;
  c.kernel = {kernel, kernel}, c.stride = {stride, stride}, c.padding = {kernel / 2, kernel / 2};
  c.bias = false;
  c.kaiming_normal = true;
  return named("conv2d", c, std::move(name));
}
LayerSpec norm(std::string name) { return named("batch_norm2d", layer::BatchNorm2d{}, std::move(name)); }
LayerSpec relu(std::string name) { return named("relu", layer::Activation{"relu"}, std::move(name)); }

// BasicBlock or Bottleneck, without the activation after the sum.
LayerSpec block(std::string name, bool bottleneck, int64_t in, int64_t width, int64_t stride) {
  const int64_t out = bottleneck ? 4 * width : width;
  layer::Residual r;
  r.layers_prefix = ".", r.shortcut_prefix = ".downsample.";
  if (bottleneck)
    r.layers = {conv("conv1", width, 1, 1),      norm("bn1"), relu("relu1"),
                conv("conv2", width, 3, stride), norm("bn2"), relu("relu2"),
                conv("conv3", out, 1, 1),        norm("bn3")};
  else
    r.layers = {conv("conv1", width, 3, stride), norm("bn1"), relu("relu1"), conv("conv2", width, 3, 1),
                norm("bn2")};
  if (stride != 1 || in != out) r.shortcut = {conv("0", out, 1, stride), norm("1")};
  return named("residual", r, std::move(name));
}

}  // namespace

std::vector<std::string> resnet_models() {
  std::vector<std::string> names;
  for (const auto& [name, depth] : kDepths) names.push_back(name);
  return names;
}

std::vector<LayerSpec> resnet_layers(const std::string& model, const std::string& stem) {
  const Depth& depth = kDepths.at(model);
  LOCKSTEP_ASSERT(stem == "imagenet" || stem == "cifar", "stem {}", stem);
  std::vector<LayerSpec> layers;
  if (stem == "cifar") {
    layers = {conv("conv1", 64, 3, 1), norm("bn1"), relu("relu")};
  } else {
    layer::MaxPool2d pool;
    pool.kernel = {3, 3}, pool.stride = {2, 2}, pool.padding = {1, 1};
    layers = {conv("conv1", 64, 7, 2), norm("bn1"), relu("relu"), named("max_pool2d", pool, "maxpool")};
  }
  int64_t in = 64;
  for (int64_t stage = 0; stage < 4; ++stage) {
    const int64_t width = int64_t{64} << stage;
    for (int64_t i = 0; i < depth.blocks[stage]; ++i) {
      const std::string name = fmt::format("layer{}.{}", stage + 1, i);
      layers.push_back(block(name, depth.bottleneck, in, width, i == 0 && stage > 0 ? 2 : 1));
      layers.push_back(relu(name + ".relu"));
      in = depth.bottleneck ? 4 * width : width;
    }
  }
  layers.push_back(named("adaptive_avg_pool2d", layer::AdaptiveAvgPool2d{}, "avgpool"));
  layers.push_back(named("flatten", layer::Flatten{}, "flatten"));
  layers.push_back(named("linear", layer::Linear{}, "fc"));
  return layers;
}

}  // namespace lockstep
