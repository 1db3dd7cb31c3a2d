// SPDX-License-Identifier: Apache-2.0
#include "bench/work_list.h"

#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/concat/concat.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/core/step_state.h"
#include "kernels/diffusion/label_dropout.h"
#include "kernels/diffusion/noise.h"
#include "kernels/diffusion/posterior.h"
#include "kernels/dropout/dropout.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/image_augment/image_augment.h"
#include "kernels/image_normalize/image_normalize.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/linear/linear.h"
#include "kernels/pool2d/pool2d.h"
#include "kernels/resample/resample.h"
#include "kernels/timestep_embedding/timestep_embedding.h"

namespace lockstep {
namespace {

TensorSpec f32(const Shape& s) { return {DType::f32, s, Layout::plain}; }
TensorSpec i32(int64_t n) { return {DType::i32, {n}, Layout::plain}; }
TensorSpec u8(const Shape& s) { return {DType::u8, s, Layout::plain}; }
TensorSpec bf16_of(TensorSpec s) {
  s.dtype = DType::bf16;
  return s;
}
const TensorSpec kStepState = u8({static_cast<int64_t>(sizeof(StepState))});

double elements(const TensorSpec& s) { return static_cast<double>(s.shape.elements()); }
std::string named(int64_t channels, int64_t size) { return fmt::format("{}, {}x{}", channels, size, size); }

}  // namespace

Work& WorkList::add(const char* op, std::string shape, Params p, std::vector<TensorSpec> in,
                    std::vector<TensorSpec> out, const std::vector<int>& batch_in,
                    const std::vector<int>& batch_out, double flops) {
  Work w{.net = net_,
         .shape = std::move(shape),
         .op = op,
         .params = std::move(p),
         .in = std::move(in),
         .out = std::move(out),
         .batch_in = batch_in,
         .batch_out = batch_out,
         .bf16_in = batch_in,
         .bf16_out = batch_out,
         .in_place = {},
         .flops = flops};
  all_.push_back(std::move(w));
  return all_.back();
}

void WorkList::conv(const Conv& c, int64_t size, bool input_grad) {
  const Conv2dParams p{.stride_h = c.stride,
                       .stride_w = c.stride,
                       .pad_top = c.begin,
                       .pad_left = c.begin,
                       .pad_bottom = c.end,
                       .pad_right = c.end};
  const TensorSpec x = f32(image(c.from, size)), w = f32({c.to, c.from, c.kernel, c.kernel}), b = f32({c.to}),
                   y = f32(image(c.to, p.out_h(size, c.kernel)));
  const std::string shape = fmt::format("{}x{} {} to {}{}, {}x{}", c.kernel, c.kernel, c.from, c.to,
                                        c.stride > 1 ? fmt::format(" by {}", c.stride) : "", size, size);
  const double flops = 2 * elements(y) * static_cast<double>(c.from * c.kernel * c.kernel);
  add("conv2d", shape, p, {x, w, b}, {y}, {0}, {0}, flops).bf16_in = {0, 1};
  if (input_grad) add("conv2d_input_grad", shape, p, {y, w}, {x}, {0}, {0}, flops).bf16_in = {0, 1};
  add("conv2d_weight_grad", shape, p, {x, y}, {w, b}, {0, 1}, {}, flops);
}

void WorkList::linear(int64_t from, int64_t to) {
  const LinearParams p;
  const TensorSpec x = f32({n_, from}), w = f32({to, from}), b = f32({to}), y = f32({n_, to});
  const std::string shape = fmt::format("{} to {}", from, to);
  const double flops = 2 * elements(y) * static_cast<double>(from);
  add("linear", shape, p, {x, w, b}, {y}, {0}, {0}, flops).bf16_in = {0, 1};
  add("linear_input_grad", shape, p, {y, w}, {x}, {0}, {0}, flops).bf16_in = {0, 1};
  add("linear_weight_grad", shape, p, {x, y}, {w, b}, {0, 1}, {}, flops);
}

void WorkList::attention(int64_t channels, int64_t size) {
  const AttentionParams p{.heads = 1, .scale = 1 / std::sqrt(static_cast<float>(channels))};
  const TensorSpec x = f32(image(channels, size)), lse = f32({n_, 1, size * size});
  const std::string shape = named(channels, size);
  const double product = 2 * elements(x) * static_cast<double>(size * size);
  add("attention", shape, p, {x, x, x}, {x, lse}, {0, 1, 2}, {0}, 2 * product);
  add("attention_grad", shape, p, {x, x, x, x, lse, x}, {x, x, x}, {0, 1, 2, 3, 5}, {0, 1, 2}, 5 * product);
}

void WorkList::token_linear(int64_t tokens, int64_t from, int64_t to) {
  const LinearParams p;
  const TensorSpec x = f32({n_, tokens, from}), w = f32({to, from}), b = f32({to}), y = f32({n_, tokens, to});
  const std::string shape = fmt::format("{} tokens, {} to {}", tokens, from, to);
  const double flops = 2 * elements(y) * static_cast<double>(from);
  add("linear", shape, p, {x, w, b}, {y}, {0}, {0}, flops).bf16_in = {0, 1};
  add("linear_input_grad", shape, p, {y, w}, {x}, {0}, {0}, flops).bf16_in = {0, 1};
  add("linear_weight_grad", shape, p, {x, y}, {w, b}, {0, 1}, {}, flops);
}

void WorkList::token_attention(int64_t queries, int64_t keys, int64_t channels, int64_t heads, bool causal) {
  const AttentionParams p{heads, 1 / std::sqrt(static_cast<float>(channels) / static_cast<float>(heads)),
                          causal};
  const TensorSpec q = f32({n_, queries, channels}), k = f32({n_, keys, channels}),
                   lse = f32({n_, heads, queries});
  const std::string shape = fmt::format("{} to {} tokens, {} heads of {}{}", queries, keys, heads,
                                        channels / heads, causal ? ", causal" : "");
  const double product = 2 * elements(q) * static_cast<double>(keys);
  add("attention", shape, p, {q, k, k}, {q, lse}, {0, 1, 2}, {0}, 2 * product);
  add("attention_grad", shape, p, {q, k, k, q, lse, q}, {q, k, k}, {0, 1, 2, 3, 5}, {0, 1, 2}, 5 * product);
}

void WorkList::layer_norm(int64_t tokens, int64_t channels) {
  const LayerNormParams p;
  const TensorSpec x = f32({n_, tokens, channels}), c = f32({channels}), stats = f32({n_, tokens, 2});
  const std::string shape = fmt::format("{} tokens of {}", tokens, channels);
  add("layer_norm", shape, p, {x, c, c}, {x, stats}, {0}, {0}, 8 * elements(x));
  add("layer_norm_grad", shape, p, {x, x, c, stats}, {x, c, c}, {0, 1}, {0}, 16 * elements(x));
}

void WorkList::geglu(int64_t tokens, int64_t channels) {
  const TensorSpec x = f32({n_, tokens, 2 * channels}), y = f32({n_, tokens, channels});
  const std::string shape = fmt::format("{} tokens of {}", tokens, channels);
  add("geglu", shape, NoParams{}, {x}, {y}, {0}, {0}, 2 * elements(y));
  add("geglu_grad", shape, NoParams{}, {x, y}, {x}, {0, 1}, {0}, 5 * elements(y));
}

void WorkList::token_embedding(int64_t words, int64_t tokens, int64_t channels) {
  const TensorSpec table = f32({words, channels}), places = f32({tokens, channels}),
                   y = f32({n_, tokens, channels}), ids{DType::i32, {n_, tokens}, Layout::plain};
  const std::string shape = fmt::format("{} tokens of {}", tokens, channels);
  add("embedding", shape, NoParams{}, {table, ids}, {y}, {}, {0}, 0).bf16_in = {0};
  add("embedding_grad", shape, NoParams{}, {ids, y}, {table}, {1}, {}, elements(y));
  add("position_embedding", shape, NoParams{}, {y, places}, {y}, {0}, {0}, elements(y));
  add("position_embedding_grad", shape, NoParams{}, {y}, {places}, {0}, {}, elements(y));
}

// As ResNets have them: relu follows, of the last norm of a block after a sum, which its gradient comes
// through before it.
void WorkList::batch_norm(int64_t channels, int64_t size) {
  const BatchNormParams p;
  BatchNormParams relu;
  relu.activation = Activation::relu;
  const TensorSpec x = f32(image(channels, size)), c = f32({channels}), stats = f32({4, channels}),
                   sums = f32({2, channels});
  const std::string shape = named(channels, size), with_relu = shape + ", relu";
  const double all = elements(x), few = static_cast<double>(channels);
  constexpr int64_t kRanks = 2;
  add("batch_norm_stats", shape, p, {x}, {f32({3, channels})}, {0}, {}, 4 * all);
  add("batch_norm_merge", shape, p, {f32({kRanks, 3, channels})}, {stats}, {}, {}, 10 * kRanks * few);
  add("batch_norm_running", shape, p, {stats, c, c}, {c, c}, {}, {}, 6 * few).in_place = {{1, 0}, {2, 1}};
  add("batch_norm_apply", with_relu, relu, {x, stats, c, c}, {x}, {0}, {0}, 3 * all);
  add("batch_norm_apply", shape + ", sum, relu", relu, {x, stats, c, c, x}, {x}, {0, 4}, {0}, 4 * all);
  add("batch_norm_grad_sums", shape, p, {x, x, stats}, {sums}, {0, 1}, {}, 5 * all);
  add("batch_norm_grad_sums", with_relu, relu, {x, x, stats, c, c}, {sums}, {0, 1}, {}, 8 * all);
  add("batch_norm_affine_grad", shape, p, {sums}, {c, c}, {}, {}, 0);
  add("batch_norm_input_grad", shape, p, {x, x, stats, c, sums}, {x}, {0, 1}, {0}, 6 * all).in_place = {
      {1, 0}};
  add("batch_norm_input_grad", with_relu, relu, {x, x, stats, c, sums, c}, {x}, {0, 1}, {0}, 9 * all)
      .in_place = {{1, 0}};
  add("batch_norm_eval", with_relu, relu, {x, c, c, c, c}, {x}, {0}, {0}, 5 * all);
}

void WorkList::group_norm(int64_t channels, int64_t size) {
  for (Activation activation : {Activation::none, Activation::silu}) {
    const GroupNormParams p{.groups = 32, .activation = activation};
    const bool silu = activation == Activation::silu;
    const TensorSpec x = f32(image(channels, size)), c = f32({channels}), stats = f32({n_, 2 * p.groups});
    const std::string shape = named(channels, size) + (silu ? ", silu" : "");
    add("group_norm", shape, p, {x, c, c}, {x, stats}, {0}, {0}, (silu ? 9 : 6) * elements(x));
    add("group_norm_grad", shape, p, {x, x, c, c, stats}, {x, c, c}, {0, 1}, {0},
        (silu ? 18 : 11) * elements(x));
  }
}

void WorkList::max_pool(int64_t channels, int64_t size) {
  const Pool2dParams p{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
  const TensorSpec x = f32(image(channels, size)), y = f32(image(channels, size / 2)), index = u8(y.shape);
  const std::string shape = named(channels, size);
  add("max_pool2d", shape, p, {x}, {y, index}, {0}, {0, 1}, elements(x));
  add("max_pool2d_grad", shape, p, {y, index}, {x}, {0, 1}, {0}, elements(x));
}

void WorkList::average_pool(int64_t channels, int64_t size) {
  const Pool2dParams p{.adaptive = true};
  const TensorSpec x = f32(image(channels, size)), y = f32(image(channels, 1));
  const std::string shape = named(channels, size);
  add("avg_pool2d", shape, p, {x}, {y}, {0}, {0}, elements(x));
  add("avg_pool2d_grad", shape, p, {y}, {x}, {0}, {0}, elements(x));
}

void WorkList::upsample(int64_t channels, int64_t size) {
  const UpsampleNearest2dParams p{2 * size, 2 * size};
  const TensorSpec x = f32(image(channels, size)), y = f32(image(channels, 2 * size));
  const std::string shape = named(channels, size);
  add("upsample_nearest2d", shape, p, {x}, {y}, {0}, {0}, 0);
  add("upsample_nearest2d_grad", shape, p, {y}, {x}, {0}, {0}, 3 * elements(x));
}

void WorkList::concat(int64_t first, int64_t second, int64_t size) {
  const TensorSpec a = f32(image(first, size)), b = f32(image(second, size)),
                   y = f32(image(first + second, size));
  const std::string shape = fmt::format("{} and {}, {}x{}", first, second, size, size);
  add("concat", shape, NoParams{}, {a, b}, {y}, {0, 1}, {0}, 0);
  add("slice_channels", shape + ": first", SliceChannelsParams{0, first}, {y}, {a}, {0}, {0}, 0);
  add("slice_channels", shape + ": second", SliceChannelsParams{first, second}, {y}, {b}, {0}, {0}, 0);
}

void WorkList::halves(int64_t features) {
  const TensorSpec x = f32({n_, features}), half = f32({n_, features / 2});
  const SliceChannelsParams p{features / 2, features / 2};
  const std::string shape = fmt::format("{}: second half", features);
  add("slice_channels", shape, p, {x}, {half}, {0}, {0}, 0);
  add("slice_channels_grad", shape, p, {half}, {x}, {0}, {0}, 0);
}

void WorkList::scale_shift(int64_t channels, int64_t size, bool scale) {
  const TensorSpec x = f32(image(channels, size)), c = f32({n_, channels});
  const std::string shape = named(channels, size);
  if (scale) {
    add("scale_shift", shape, NoParams{}, {x, c, c}, {x}, {0, 1, 2}, {0}, 3 * elements(x));
    add("scale_shift_grad", shape, NoParams{}, {x, x, c}, {c, x, c}, {0, 1, 2}, {0, 1, 2}, 5 * elements(x));
  } else {
    add("scale_shift", shape + ", shift", NoParams{}, {x, c}, {x}, {0, 1}, {0}, elements(x));
    add("scale_shift_grad", shape + ", shift", NoParams{}, {x}, {c}, {0}, {0}, elements(x));
  }
}

Work& WorkList::add_elementwise(std::string text, int inputs, const std::vector<EltInstruction>& code,
                                const TensorSpec& x) {
  const ElementwiseParams p{inputs, code, {inputs + static_cast<int>(code.size()) - 1}};
  std::vector<int> all;
  for (int i = 0; i < inputs; ++i) all.push_back(i);
  return add("elementwise", std::move(text), p, std::vector<TensorSpec>(all.size(), x), {x}, all, {0},
             elements(x) * static_cast<double>(code.size()));
}
void WorkList::elementwise(const char* what, int inputs, const std::vector<EltInstruction>& code,
                           int64_t channels, int64_t size) {
  add_elementwise(fmt::format("{}, {}", what, named(channels, size)), inputs, code,
                  f32(image(channels, size)));
}
void WorkList::elementwise_rows(const char* what, int inputs, const std::vector<EltInstruction>& code,
                                int64_t features) {
  add_elementwise(fmt::format("{}, {}", what, features), inputs, code, f32({n_, features}));
}

void WorkList::dropout(int64_t features) {
  const TensorSpec x = f32({n_, features});
  add("dropout", fmt::format("{}", features), DropoutParams{}, {x, kStepState}, {x}, {0}, {0}, elements(x));
}

void WorkList::reorder(int64_t channels, int64_t size) {
  const TensorSpec x = f32(image(channels, size));
  add("reorder", named(channels, size) + ", nhwc to plain", NoParams{}, {x}, {x}, {0}, {}, 0).bf16_out = {0};
  add("reorder", named(channels, size) + ", plain to nhwc", NoParams{}, {x}, {x}, {}, {0}, 0).bf16_in = {0};
}

void WorkList::cast(int64_t features) {
  const TensorSpec x = f32({n_, features}), half = bf16_of(x);
  add("cast", fmt::format("{} to bf16", features), NoParams{}, {x}, {half}, {}, {}, 0);
  add("cast", fmt::format("{} to f32", features), NoParams{}, {half}, {x}, {}, {}, 0);
}

void WorkList::pixels(int64_t channels, int64_t size) {
  const auto count = static_cast<size_t>(channels);
  const ImageNormalizeParams p{std::vector<float>(count, 0.5f), std::vector<float>(count, 0.25f)};
  const TensorSpec y = f32(image(channels, size));
  add("image_normalize", named(channels, size), p, {u8(y.shape)}, {y}, {}, {0}, 2 * elements(y));
}

void WorkList::augment(int64_t channels, int64_t size) {
  const TensorSpec x = u8(image(channels, size));
  add("image_augment", named(channels, size), ImageAugmentParams{.flip = true, .padding = 4}, {x, kStepState},
      {x}, {}, {}, 0);
}

void WorkList::log_softmax(int64_t classes) {
  const TensorSpec x = f32({n_, classes});
  const std::string shape = fmt::format("{}", classes);
  add("log_softmax", shape, NoParams{}, {x}, {x}, {0}, {0}, 4 * elements(x));
  add("log_softmax_grad", shape, NoParams{}, {x, x}, {x}, {0, 1}, {0}, 4 * elements(x));
}

void WorkList::loss(int64_t classes, const LossParams& p) {
  const TensorSpec x = f32({n_, classes}), labels = i32(n_);
  const std::string shape = fmt::format("{}", classes);
  add("cross_entropy", shape, p, {x, labels}, {f32({2})}, {0}, {}, 4 * elements(x));
  add("cross_entropy_grad", shape, p, {x, labels, kStepState}, {x}, {0}, {0}, 4 * elements(x));
}

void WorkList::noise(int64_t channels, int64_t size) {
  // DDPM's schedule (Ho, Jain, Abbeel: arXiv 2006.11239, section 4): beta from 1e-4 to 0.02 in 1000 steps.
  DiffusionNoiseParams p;
  double product = 1;
  for (int t = 0; t < 1000; ++t) p.alphas_cumprod.push_back(product *= 1 - (1e-4 + t * (0.02 - 1e-4) / 999));
  const TensorSpec x = f32(image(channels, size)), weights = f32({n_});
  const std::string shape = named(channels, size);
  Work& w = add("diffusion_noise", shape, p, {x, kStepState}, {x, x, i32(n_), weights}, {0}, {0, 1},
                3 * elements(x));
  w.bf16_out = {0};
  add("weighted_mse", shape, NoParams{}, {x, x, weights}, {f32({2})}, {0, 1}, {}, 3 * elements(x)).bf16_in = {
      0};
  add("weighted_mse_grad", shape, NoParams{}, {x, x, weights, kStepState}, {x}, {0, 1}, {0}, 2 * elements(x))
      .bf16_in = {0};
  const TensorSpec moments = f32(image(2 * channels, size));
  add("posterior_sample", shape, PosteriorParams{0.18215f}, {moments, kStepState}, {x}, {0}, {0},
      4 * elements(x));
}

void WorkList::time_embedding(int64_t width) {
  const TensorSpec y = f32({n_, width});
  add("timestep_embedding", fmt::format("{}", width), TimestepEmbeddingParams{.dim = width}, {i32(n_)}, {y},
      {}, {0}, 3 * elements(y));
}

void WorkList::class_embedding(int64_t classes, int64_t width) {
  const TensorSpec table = f32({classes, width}), y = f32({n_, width});
  const std::string shape = fmt::format("{} of {}", classes, width);
  add("label_dropout", shape, LabelDropoutParams{.p = 0.1f, .null_label = static_cast<int32_t>(classes) - 1},
      {i32(n_), kStepState}, {i32(n_)}, {}, {}, 0);
  add("embedding", shape, NoParams{}, {table, i32(n_)}, {y}, {}, {0}, 0).bf16_in = {0};
  add("embedding_grad", shape, NoParams{}, {i32(n_), y}, {table}, {1}, {}, elements(y));
}

void WorkList::optimizer(int64_t parameters, OptimizerParams p) {
  p.segments = {{.begin = 0, .end = parameters}};
  const TensorSpec a = f32({parameters});
  const std::string shape = fmt::format("{} parameters", parameters);
  if (p.clip_norm > 0) add("grad_norm", shape, p, {a}, {f32({1})}, {}, {}, 2 * elements(a));
  for (bool half : {false, true}) {
    p.half = half;
    std::vector<TensorSpec> in = {a, a, kStepState, f32({2}), f32({1})}, out = {a};
    std::vector<std::pair<int, int>> in_place = {{0, 0}};
    const auto also = [&](const TensorSpec& s) {
      in_place.emplace_back(static_cast<int>(in.size()), static_cast<int>(out.size()));
      in.push_back(s), out.push_back(s);
    };
    for (int i = 0; i < p.state_count() + p.ema; ++i) also(a);
    if (half) also(bf16_of(a));
    add("optimizer_step", shape + (half ? ", bf16 copy" : ""), p, in, out, {}, {}, 12 * elements(a))
        .in_place = in_place;
  }
}

}  // namespace lockstep
