// SPDX-License-Identifier: Apache-2.0
// Small nets, as training graphs built twice: as they are, and as the passes make them. Images of [3, 8, 8],
// 5 classes.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/concat/concat.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"
#include "kernels/dropout/dropout.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/linear/linear.h"
#include "kernels/loss/loss.h"
#include "kernels/pool2d/pool2d.h"
#include "kernels/resample/resample.h"
#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/graph/passes.h"
#include "runtime/training/step_graph.h"

namespace lockstep::testing {

inline constexpr int64_t kChannels = 3, kSide = 8, kClasses = 5;

// Layers on a GraphBuilder.
struct Layers {
  GraphBuilder& b;
  ValueId step_state;

  static Init uniform(double bound) { return {Init::Kind::uniform, 0, static_cast<float>(bound)}; }
  ValueId conv(const std::string& name, ValueId x, int64_t out, int64_t kernel, int64_t padding = 0,
               int64_t stride = 1, int64_t groups = 1) const {
    b.set_scope(name);
    const int64_t in = b.spec(x).shape[1] / groups;
    const Init init = uniform(1 / std::sqrt(static_cast<double>(in * kernel * kernel)));
    const ValueId w = b.parameter(name + ".weight", {out, in, kernel, kernel}, init);
    const ValueId bias = b.parameter(name + ".bias", {out}, init);
    Conv2dParams p;
    p.stride_h = p.stride_w = stride, p.groups = groups;
    p.pad_top = p.pad_left = p.pad_bottom = p.pad_right = padding;
    return b.add1("conv2d", p, {x, w, bias});
  }
  ValueId linear(const std::string& name, ValueId x, int64_t out) const {
    const int64_t in = b.spec(x).shape.elements_from(1);
    if (b.spec(x).shape.rank() != 2) x = b.view(x, {b.spec(x).shape[0], in});
    b.set_scope(name);
    const Init init = uniform(1 / std::sqrt(static_cast<double>(in)));
    const ValueId w = b.parameter(name + ".weight", {out, in}, init);
    return b.add1("linear", LinearParams{}, {x, w, b.parameter(name + ".bias", {out}, init)});
  }
  // Of tokens [N, T, C], each by itself.
  ValueId token_linear(const std::string& name, ValueId x, int64_t out) const {
    b.set_scope(name);
    const Init init = uniform(1 / std::sqrt(static_cast<double>(b.spec(x).shape[2])));
    const ValueId w = b.parameter(name + ".weight", {out, b.spec(x).shape[2]}, init);
    return b.add1("linear", LinearParams{}, {x, w, b.parameter(name + ".bias", {out}, init)});
  }
  ValueId layer_norm(const std::string& name, ValueId x) const {
    const auto [gamma, beta] = affine(name, x, 2);
    return b.add("layer_norm", LayerNormParams{}, {x, gamma, beta})[0];
  }
  // A 1x1 convolution with the weight of a linear layer.
  ValueId project(const std::string& name, ValueId x) const {
    b.set_scope(name);
    const int64_t c = b.spec(x).shape[1];
    const ValueId w = b.parameter(name + ".weight", {c, c}, uniform(0.6));
    return b.add1("conv2d", Conv2dParams{},
                  {x, b.view(w, {c, c, 1, 1}), b.parameter(name + ".bias", {c}, uniform(1))});
  }
  ValueId relu(ValueId x) const { return b.elementwise(Elt::relu, {x}); }
  ValueId max_pool(ValueId x) const { return b.add("max_pool2d", pool(), {x})[0]; }
  ValueId avg_pool(ValueId x) const { return b.add1("avg_pool2d", pool(), {x}); }
  ValueId group_norm(const std::string& name, ValueId x, int64_t groups) const {
    const auto [gamma, beta] = affine(name, x);
    return b.add("group_norm", GroupNormParams{groups, 1e-5f}, {x, gamma, beta})[0];
  }
  ValueId batch_norm(const std::string& name, ValueId x, int ranks = 1) const {
    const auto [gamma, beta] = affine(name, x);
    const BatchNormParams p;
    const ValueId parts = b.all_gather(b.add1("batch_norm_stats", p, {x}), ranks);
    return b.add1("batch_norm_apply", p, {x, b.add1("batch_norm_merge", p, {parts}), gamma, beta});
  }
  ValueId dropout(ValueId x, bool channelwise) const {
    return b.add1("dropout", DropoutParams{0.4f, channelwise, channelwise ? 1u : 0u}, {x, step_state});
  }

 private:
  static Pool2dParams pool() {
    Pool2dParams p;
    p.kernel_h = p.kernel_w = p.stride_h = p.stride_w = 2;
    return p;
  }
  // Drawn, not 1 and 0: a gradient that forgets gamma is then seen.
  std::pair<ValueId, ValueId> affine(const std::string& name, ValueId x, int channels = 1) const {
    b.set_scope(name);
    const Shape c{b.spec(x).shape[channels]};
    return {b.parameter(name + ".weight", c, uniform(1)), b.parameter(name + ".bias", c, uniform(1))};
  }
};

struct Net {
  std::string name;
  std::function<ValueId(const Layers&, ValueId image)> build;
  bool log_probabilities = false;  // ends in log_softmax
  bool smooth = true;              // no kinks (ReLU, max)
};

inline std::vector<Net> nets() {
  return {
      {"relu_max_pool",
       [](const Layers& l, ValueId x) {
         x = l.relu(l.conv("conv1", x, 4, 3, 1));
         x = l.max_pool(l.relu(l.conv("conv2", x, 6, 3)));
         return l.linear("fc", l.relu(l.linear("fc0", x, 7)), kClasses);
       },
       false, false},
      {"max_pool_relu",
       [](const Layers& l, ValueId x) {
         x = l.relu(l.max_pool(l.conv("conv1", x, 4, 3, 1)));
         return l.linear("fc", l.relu(l.max_pool(l.conv("conv2", x, 6, 3, 1))), kClasses);
       },
       false, false},
      {"silu_group_norm",
       [](const Layers& l, ValueId x) {
         x = l.b.elementwise(Elt::silu, {l.conv("conv1", x, 6, 3, 1, 2, 3)});
         x = l.avg_pool(l.group_norm("gn", x, 2));
         return l.linear("fc", x, kClasses);
       }},
      {"batch_norm_residual",
       [](const Layers& l, ValueId x) {
         x = l.b.elementwise(Elt::silu, {l.batch_norm("bn1", l.conv("conv1", x, 4, 3, 1))});
         const ValueId y = l.batch_norm("bn2", l.conv("conv2", x, 4, 3, 1));
         x = l.avg_pool(l.b.elementwise(Elt::tanh, {l.b.elementwise(Elt::add, {y, x})}));
         return l.b.add1("log_softmax", NoParams{}, {l.linear("fc", x, kClasses)});
       },
       true},
      // As ResNets have them: relu after a norm, and after the sum of one with a shortcut that has its own.
      {"batch_norm_relu",
       [](const Layers& l, ValueId x) {
         x = l.relu(l.batch_norm("bn1", l.conv("conv1", x, 4, 3, 1)));
         const ValueId y = l.batch_norm(
             "bn3", l.conv("conv3", l.relu(l.batch_norm("bn2", l.conv("conv2", x, 4, 3, 1))), 6, 3, 1));
         x = l.relu(l.b.elementwise(Elt::add, {y, l.batch_norm("bn4", l.conv("conv4", x, 6, 1))}));
         x = l.relu(l.b.elementwise(Elt::add, {l.batch_norm("bn5", l.conv("conv5", x, 6, 3, 1)), x}));
         return l.b.add1("log_softmax", NoParams{}, {l.linear("fc", l.avg_pool(x), kClasses)});
       },
       true, false},
      {"fan_out",
       [](const Layers& l, ValueId x) {
         GraphBuilder& b = l.b;
         const ValueId y = l.conv("conv1", x, 4, 3);
         const ValueId gate = b.elementwise(Elt::sigmoid, {y});
         ValueId z =
             b.elementwise(Elt::add, {b.elementwise(Elt::mul, {y, gate}), b.elementwise(Elt::tanh, {y})});
         z = b.elementwise(Elt::sub, {z, b.elementwise(Elt::scale, {b.elementwise(Elt::gelu, {y})}, 0.3f)});
         z = b.elementwise(Elt::add_imm, {b.elementwise(Elt::add, {z, z})}, 0.1f);
         return l.linear("fc", z, kClasses);
       }},
      // Weights read through a view.
      {"attention",
       [](const Layers& l, ValueId x) {
         x = l.conv("conv1", x, 6, 3, 1, 2);
         const ValueId normed = l.group_norm("gn", x, 2);
         const ValueId q = l.project("q", normed), k = l.project("k", normed), v = l.project("v", normed);
         const ValueId o = l.b.add("attention", AttentionParams{3, 0.7f}, {q, k, v})[0];
         return l.linear("fc", l.b.elementwise(Elt::add, {l.project("out", o), x}), kClasses);
       }},
      // A transformer on an image's tokens, with a second sequence of its own, and a shortcut around it.
      {"transformer",
       [](const Layers& l, ValueId x) {
         GraphBuilder& b = l.b;
         x = l.conv("conv1", x, 16, 3, 1, 2);
         const ValueId text = b.view(l.linear("text", l.avg_pool(x), 24), {b.spec(x).shape[0], 3, 8});
         ValueId t = l.token_linear("in", b.tokens(l.group_norm("gn", x, 4)), 12);
         for (bool self : {true, false}) {
           const std::string name = self ? "self" : "cross";
           const ValueId normed = l.layer_norm(name + ".ln", t), other = self ? normed : text;
           const ValueId q = l.token_linear(name + ".q", normed, 12);
           const ValueId k = l.token_linear(name + ".k", other, 12),
                         v = l.token_linear(name + ".v", other, 12);
           const ValueId o = b.add("attention", AttentionParams{2, 0.4f, self}, {q, k, v})[0];
           t = b.elementwise(Elt::add, {t, l.token_linear(name + ".out", o, 12)});
         }
         const ValueId table = b.parameter("places", {20, 12}, Layers::uniform(1));
         t = b.add1("position_embedding", NoParams{}, {t, table});
         const ValueId wide = l.token_linear("wide", l.layer_norm("ff.ln", t), 40);
         const ValueId gated = b.add1("geglu", NoParams{}, {wide});
         t = l.token_linear("narrow", b.elementwise(Elt::quick_gelu, {gated}), 16);
         return l.linear("fc", b.elementwise(Elt::add, {b.image(t, 4, 4), x}), kClasses);
       }},
      // 40 channels lie plain, 3 and 8 in lanes: values are reordered between.
      {"wide_conv",
       [](const Layers& l, ValueId x) {
         x = l.b.elementwise(Elt::silu, {l.conv("conv1", x, 8, 3)});
         x = l.b.elementwise(Elt::tanh, {l.conv("conv2", x, 40, 3, 1)});
         const ValueId y = l.conv("conv3", x, 40, 3, 1);
         x = l.b.elementwise(Elt::add, {x, y});
         return l.linear("fc", l.avg_pool(l.conv("conv4", x, 6, 1)), kClasses);
       }},
      // What a diffusion UNet is made of, the image itself in the time's place.
      {"unet",
       [](const Layers& l, ValueId x) {
         GraphBuilder& b = l.b;
         const ValueId emb = l.linear("time", l.avg_pool(l.avg_pool(x)), 12);
         const auto part = [&](int64_t begin) {
           return b.add1("slice_channels", SliceChannelsParams{begin, 6}, {emb});
         };
         const ValueId first = l.conv("conv1", x, 6, 3, 1);
         ValueId y = b.elementwise(Elt::silu, {l.group_norm("gn1", first, 3)});
         y = b.add1("scale_shift", NoParams{}, {l.conv("down", y, 6, 3, 1, 2), part(3)});
         y = b.add1("scale_shift", NoParams{}, {l.group_norm("gn2", y, 2), part(0), part(6)});
         y = b.add1("upsample_nearest2d", UpsampleNearest2dParams{8, 8}, {b.elementwise(Elt::silu, {y})});
         y = l.group_norm("gn3", b.add1("concat", NoParams{}, {y, first}), 4);
         y = l.conv("conv2", b.elementwise(Elt::silu, {y}), 4, 3, 1);
         return l.linear("fc", l.avg_pool(y), kClasses);
       }},
      {"dropout",
       [](const Layers& l, ValueId x) {
         x = l.dropout(l.conv("conv1", x, 6, 3), true);
         return l.linear("fc", l.dropout(l.b.elementwise(Elt::gelu, {l.linear("fc0", x, 20)}), false),
                         kClasses);
       }},
  };
}

// Loss, and the gradient of every parameter; metrics and gradients lie in the gradient array. `laid_out`:
// through assign_layouts, as training does it.
inline Graph training_graph(const Net& net, int64_t batch, bool laid_out) {
  Graph g;
  GraphBuilder b(g);
  const ValueId images = b.input(kImages, {DType::u8, {batch, kChannels, kSide, kSide}, Layout::plain}, true);
  ValueId labels = b.input(kLabels, {DType::i32, {batch}, Layout::plain}, true);
  ValueId state =
      b.input(kStepState, {DType::u8, {static_cast<int64_t>(sizeof(StepState))}, Layout::plain}, false);
  const ImageNormalizeParams normalize{{0.5f, 0.4f, 0.6f}, {0.3f, 0.25f, 0.35f}};
  ValueId scores = net.build(Layers{b, state}, b.add1("image_normalize", normalize, {images}));
  if (laid_out) g = assign_layouts(g, {&labels, &state, &scores});
  const LossParams loss{0.1f, net.log_probabilities};
  b.set_scope("loss");
  const ValueId metrics = b.add1("cross_entropy", loss, {scores, labels});
  g.value(metrics).storage = Storage::gradient, g.value(metrics).name = kMetrics;
  b.set_backward(true);
  const ValueId seed =
      b.add_as("cross_entropy_grad", loss, {scores, labels, state}, {{b.spec(scores), true, true}})[0];
  for (auto [p, d] : append_gradients(b, {{scores, seed}}, g.values_in(Storage::parameter))) {
    LOCKSTEP_ASSERT(d != kNoValue, "no gradient of {}", g.value(p).name);
    g.value(d).storage = Storage::gradient, g.value(d).name = g.value(p).name;
  }
  return g;
}

// Every value keeps a memory of its own: nothing is fused, shared or worked on in place.
inline void keep_apart(Graph& g) {
  for (const Node& n : g.nodes())
    for (ValueId v : n.out)
      if (n.kind == NodeKind::compute && g.value(v).storage == Storage::arena) {
        g.value(v).storage = Storage::output;
        g.value(v).name = fmt::format("value {}", v);
      }
}

inline void choose_reference(KernelTable& table, const Graph& g) {
  for (const Node& n : g.nodes())
    if (n.kind == NodeKind::compute) table[kernel_signature(g, n)] = "reference";
}

// A compiled graph with its parameters, on one rank, with its own data.
class Runner {
 public:
  Runner(const Graph& parameters_of, Graph graph, int64_t batch, bool reference, int threads = 1)
      : Runner(parameters_of, std::move(graph), batch, how(threads), reference) {}
  Runner(const Graph& parameters_of, Graph graph, int64_t batch, const KernelChoice& how,
         bool reference = false)
      : model(make_parameter_table(parameters_of), {.half = how.activations == DType::bf16},
              *make_self_communicator()),
        comm_(make_self_communicator()),
        device_(make_host_runtime(how.device)),
        executor_(model, *comm_, *comm_, how, *device_),
        images_(static_cast<size_t>(batch * kChannels * kSide * kSide)),
        labels_(static_cast<size_t>(batch)) {
    std::mt19937 random(7);
    for (auto& p : images_) p = static_cast<uint8_t>(random() & 255);
    for (auto& l : labels_) l = static_cast<int32_t>(random() % kClasses);
    model.initialise(3);
    KernelTable table;
    plan = std::make_shared<Plan>(compile(std::move(graph), table, how, [&](KernelTable& t, const Graph& g) {
      reference ? choose_reference(t, g) : choose_first_kernels(t, g, how);
    }));
    executor_.upload_model();
    bound_ = &executor_.bind(plan);
    inputs_.set(kImages, images_), inputs_.set(kLabels, labels_);
    inputs_.state.seed = 5, inputs_.state.global_samples = batch;
  }
  static KernelChoice how(int threads) { return {Device::cpu, threads, "test", ""}; }

  void run() { executor_.run(*bound_, inputs_); }
  // Mean loss; reads what run() left.
  double loss() const { return double{model.gradients.as<float>()[0]} / static_cast<double>(labels_.size()); }
  std::vector<float> gradient(const std::string& name) const {
    const FlatEntry& e = model.table.parameter(name);
    const float* g = model.gradients.as<float>() + e.begin;
    return {g, g + e.shape.elements()};
  }

  ModelState model;
  std::shared_ptr<Plan> plan;

 private:
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<DeviceRuntime> device_;
  Executor executor_;
  std::vector<uint8_t> images_;
  std::vector<int32_t> labels_;
  Executor::Bound* bound_ = nullptr;
  StepInputs inputs_;
};

inline double norm(const std::vector<float>& x) {
  double s = 0;
  for (float v : x) s += double{v} * double{v};
  return std::sqrt(s);
}

}  // namespace lockstep::testing
