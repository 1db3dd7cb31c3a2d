// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/core/kernel.h"
#include "kernels/pool2d/pool2d.h"
#include "models/blocks.h"
#include "models/model.h"

namespace lockstep {
namespace {

// torch.nn.init.kaiming_normal_(mode="fan_out", nonlinearity="relu"), as torchvision initialises
// convolutions.
Init kaiming_normal_for(int64_t fan_out) { return normal_init(std::sqrt(2 / static_cast<double>(fan_out))); }

ValueId add_layers(ModelContext& c, const std::vector<LayerSpec>& layers, ValueId x,
                   const std::string& prefix);

// One overload per layer kind; `name` is the layer's tensor prefix without the dot.
struct Adder {
  ModelContext& c;
  ValueId x;
  const std::string& name;
  GraphBuilder& b = c.builder;

  const Shape& in() const { return b.spec(x).shape; }
  void expect_image(const char* what) const {
    if (in().rank() != 4)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("{} needs an image [N, C, H, W], got {}", what, in().text()));
  }

  ValueId operator()(const layer::Conv2d& l) const {
    expect_image("conv2d");
    if (l.in_channels && l.in_channels != in()[1])
      throw Error(
          Exit::config, "E_SHAPE",
          fmt::format("conv2d has in_channels {}, its input {} has {}", l.in_channels, in().text(), in()[1]));
    const int64_t channels = in()[1];
    if (channels % l.groups || l.out_channels % l.groups)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("conv2d: {} groups do not divide {} input and {} output channels", l.groups,
                              channels, l.out_channels));
    const Shape w{l.out_channels, channels / l.groups, l.kernel.h, l.kernel.w};
    std::optional<Init> init;
    if (l.kaiming_normal) init = kaiming_normal_for(l.out_channels * w.elements_from(2));
    Conv2dParams p;
    p.stride_h = l.stride.h, p.stride_w = l.stride.w;
    p.pad_top = p.pad_bottom = l.padding.h, p.pad_left = p.pad_right = l.padding.w;
    p.dilation_h = l.dilation.h, p.dilation_w = l.dilation.w;
    p.groups = l.groups;
    return conv2d(b, x, name, w, p, l.bias, init);
  }

  ValueId operator()(const layer::Linear& l) const {
    if (in().rank() != 2)
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("linear needs features [N, K], got {}: put a flatten before it", in().text()));
    if (l.in_features && l.in_features != in()[1])
      throw Error(
          Exit::config, "E_SHAPE",
          fmt::format("linear has in_features {}, its input {} has {}", l.in_features, in().text(), in()[1]));
    return linear(b, x, name, l.out_features, l.bias);
  }

  ValueId operator()(const layer::MaxPool2d& l) const {
    Pool2dParams p;
    p.kernel_h = l.kernel.h, p.kernel_w = l.kernel.w;
    p.stride_h = l.stride.h ? l.stride.h : l.kernel.h, p.stride_w = l.stride.w ? l.stride.w : l.kernel.w;
    p.pad_h = l.padding.h, p.pad_w = l.padding.w;
    p.dilation_h = l.dilation.h, p.dilation_w = l.dilation.w;
    p.ceil_mode = l.ceil_mode;
    return b.add1("max_pool2d", p, {x});
  }

  ValueId operator()(const layer::AvgPool2d& l) const {
    Pool2dParams p;
    p.kernel_h = l.kernel.h, p.kernel_w = l.kernel.w;
    p.stride_h = l.stride.h ? l.stride.h : l.kernel.h, p.stride_w = l.stride.w ? l.stride.w : l.kernel.w;
    p.pad_h = l.padding.h, p.pad_w = l.padding.w;
    p.ceil_mode = l.ceil_mode;
    p.count_include_pad = l.count_include_pad;
    return b.add1("avg_pool2d", p, {x});
  }

  ValueId operator()(const layer::AdaptiveAvgPool2d& l) const {
    Pool2dParams p;
    p.adaptive = true;
    p.adaptive_h = l.output.h, p.adaptive_w = l.output.w;
    return b.add1("avg_pool2d", p, {x});
  }

  ValueId operator()(const layer::Activation& l) const { return activate(b, x, activation_of(l.kind)); }

  ValueId operator()(const layer::Dropout& l) const {
    if (l.channelwise) expect_image("dropout2d");
    return dropout(c, x, l.p, l.channelwise);
  }

  ValueId operator()(const layer::BatchNorm2d& l) const {
    expect_image("batch_norm2d");
    const int64_t channels = in()[1];
    BatchNormParams p;
    p.eps = static_cast<float>(l.eps), p.momentum = static_cast<float>(l.momentum);
    const ValueId gamma = b.parameter(name + ".weight", {channels}, constant_init(1));
    const ValueId beta = b.parameter(name + ".bias", {channels}, constant_init(0));
    const ValueId mean = b.buffer(name + ".running_mean", {channels}, 0);
    const ValueId var = b.buffer(name + ".running_var", {channels}, 1);
    if (!c.training) return b.add1("batch_norm_eval", p, {x, mean, var, gamma, beta});
    const ValueId parts = b.all_gather(b.add1("batch_norm_stats", p, {x}), c.ranks);
    const ValueId stats = b.add1("batch_norm_merge", p, {parts});
    const auto updated =
        b.add_as("batch_norm_running", p, {stats, mean, var}, {{b.spec(mean), false}, {b.spec(var), false}});
    for (size_t i = 0; i < 2; ++i) {
      Value& out = b.graph().value(updated[i]);
      out.storage = Storage::buffer;
      out.name = b.graph().value(i == 0 ? mean : var).name;
    }
    return b.add1("batch_norm_apply", p, {x, stats, gamma, beta});
  }

  ValueId operator()(const layer::GroupNorm& l) const { return group_norm(b, x, name, l.groups, l.eps); }

  ValueId operator()(const layer::SelfAttention2d& l) const {
    expect_image("self_attention2d");
    return self_attention2d(b, x, name, l.heads, l.groups, l.eps);
  }

  ValueId operator()(const layer::Flatten&) const {
    if (in().rank() == 2) return x;
    return b.view(x, {in()[0], in().elements_from(1)});
  }

  ValueId operator()(const layer::LogSoftmax&) const { return b.add1("log_softmax", NoParams{}, {x}); }

  ValueId operator()(const layer::Residual& l) const {
    // The outermost residual is what is recomputed as one.
    const bool outermost = b.block().empty();
    if (outermost) b.set_block(name);
    const ValueId main = add_layers(c, l.layers, x, name + l.layers_prefix);
    const ValueId side = l.shortcut.empty() ? x : add_layers(c, l.shortcut, x, name + l.shortcut_prefix);
    b.set_scope(name);
    if (!(b.spec(main).shape == b.spec(side).shape))
      throw Error(Exit::config, "E_SHAPE",
                  fmt::format("residual: its layers give {}, its shortcut gives {}",
                              b.spec(main).shape.text(), b.spec(side).shape.text()));
    const ValueId y = b.elementwise(Elt::add, {main, side});
    if (outermost) b.set_block("");
    return y;
  }
};

ValueId add_layers(ModelContext& c, const std::vector<LayerSpec>& layers, ValueId x,
                   const std::string& prefix) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerSpec& l = layers[i];
    const std::string name = prefix + (l.name.empty() ? std::to_string(i) : l.name);
    c.builder.set_scope(name);
    try {
      x = std::visit(Adder{c, x, name}, l.kind);
    } catch (Error& e) {
      // The innermost layer is the one at fault: add_place keeps the first.
      e.add_place("layer",
                  fmt::format("{}{} ({}{})", prefix, i, l.type, l.name.empty() ? "" : " '" + l.name + "'"));
      if (!l.where.empty()) e.add_place("job", l.where);
      throw;
    }
  }
  return x;
}

// Where a layer is to give the data's classes.
void set_classes(std::vector<LayerSpec>& layers, int64_t classes) {
  for (LayerSpec& l : layers) {
    if (auto* linear = std::get_if<layer::Linear>(&l.kind); linear && linear->out_features == 0)
      linear->out_features = classes;
    if (auto* residual = std::get_if<layer::Residual>(&l.kind))
      set_classes(residual->layers, classes), set_classes(residual->shortcut, classes);
  }
}

}  // namespace

Classifier make_classifier(const ModelSpec& spec, int64_t classes) {
  std::vector<LayerSpec> layers = layers_of(spec);
  set_classes(layers, classes);
  return [layers](ModelContext& c, ValueId image) { return add_layers(c, layers, image, ""); };
}

}  // namespace lockstep
