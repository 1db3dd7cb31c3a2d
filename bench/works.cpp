// SPDX-License-Identifier: Apache-2.0
#include "bench/works.h"

#include <thread>

#include "bench/work_list.h"
#include "kernels/core/bf16.h"
#include "kernels/core/parallel.h"
#include "kernels/core/step_state.h"

namespace lockstep {
namespace {

const std::vector<EltInstruction> kRelu = {{Elt::relu, 0}}, kReluGrad = {{Elt::relu_grad, 0, 1}},
                                  kSilu = {{Elt::silu, 0}}, kSiluGrad = {{Elt::silu_grad, 0, 1}},
                                  kAdd = {{Elt::add, 0, 1}};

std::vector<Work> mnist(int64_t batch, bool few) {
  WorkList l("mnist", batch);
  l.pixels(1, 28);
  l.conv({1, 10, 5, 1, 0, 0}, 28, false);
  l.max_pool(10, 24);
  l.elementwise("relu", 1, kRelu, 10, 12);
  l.conv({10, 20, 5, 1, 0, 0}, 12);
  if (!few) {
    l.max_pool(20, 8);
    l.linear(50, 10);
  }
  l.reorder(20, 4);
  l.linear(320, 50);
  l.dropout(50);
  l.log_softmax(10);
  l.loss(10, {.from_log_probs = true});
  l.optimizer(22'000, {.momentum = 0.5});
  return l.take();
}

std::vector<Work> resnet(int64_t batch, bool few) {
  WorkList l("resnet", batch);
  l.augment(3, 32);
  l.cast(512);
  if (few) {
    l.conv(64, 64, 3, 8);
    l.batch_norm(64, 32);
    l.elementwise("relu_grad", 2, kReluGrad, 64, 16);
    l.max_pool(64, 16);
    l.average_pool(128, 4);
    return l.take();
  }
  l.pixels(3, 32);
  l.conv(3, 64, 3, 32, false);
  l.conv(64, 64, 3, 32);
  for (int64_t c = 64, size = 32; c < 512; c *= 2, size /= 2) {
    l.conv({c, 2 * c, 3, 2, 1, 1}, size);
    l.conv({c, 2 * c, 1, 2, 0, 0}, size);
    l.conv(2 * c, 2 * c, 3, size / 2);
  }
  for (int64_t c = 64, size = 32; c <= 512; c *= 2, size /= 2) {
    l.batch_norm(c, size);
    l.elementwise("relu_grad", 2, kReluGrad, c, size);
  }
  l.max_pool(64, 32);  // ImageNet's stem on such images
  l.average_pool(512, 4);
  l.linear(512, 10);
  l.loss(10, {.label_smoothing = 0.1f});
  l.optimizer(11'173'962, {.momentum = 0.9, .nesterov = true});
  return l.take();
}

// Channels 128, 256, 256, 256 at 32x32, 16x16, 8x8, 4x4. A norm followed by a SiLU is one op, as in plans.
std::vector<Work> unet(int64_t batch, bool few) {
  WorkList l("unet", batch);
  const OptimizerParams adam{.kind = OptimizerParams::Kind::adam, .clip_norm = 1, .ema = true};
  l.noise(3, 32);
  l.time_embedding(128);
  l.class_embedding(11, 512);
  l.halves(512);
  if (few) {
    l.conv(128, 128, 3, 8);
    l.linear(512, 256);
    l.group_norm(128, 16);
    l.attention(256, 8);
    l.elementwise("add", 2, kAdd, 128, 16);
    l.upsample(128, 8);
    l.concat(256, 128, 8);
    for (bool scale : {false, true}) l.scale_shift(128, 16, scale);
    l.optimizer(100'000, adam);
    return l.take();
  }
  l.conv(3, 128, 3, 32, false);
  l.conv(128, 128, 3, 32);
  l.conv({128, 128, 3, 2, 0, 1}, 32);
  l.conv(128, 256, 3, 16);
  l.conv(128, 256, 1, 16);
  l.conv(256, 256, 3, 16);
  l.conv(256, 256, 1, 16);
  l.conv({256, 256, 3, 2, 0, 1}, 16);
  l.conv(512, 256, 3, 16);
  l.conv(384, 256, 3, 16);
  l.conv(256, 256, 3, 8);
  l.conv(512, 256, 3, 8);
  l.conv(512, 256, 1, 8);
  l.conv(256, 256, 3, 4);
  l.conv(512, 256, 3, 4);
  l.conv(384, 128, 3, 32);
  l.conv(384, 128, 1, 32);
  l.conv(256, 128, 3, 32);
  l.conv(128, 3, 3, 32);
  l.linear(128, 512);
  l.linear(512, 512);
  l.linear(512, 256);
  l.elementwise_rows("silu", 1, kSilu, 512);
  l.elementwise_rows("silu_grad", 2, kSiluGrad, 512);
  struct Images {
    int64_t channels, size;
  };
  for (auto [channels, size] : {Images{128, 32},
                                {256, 32},
                                {384, 32},
                                {128, 16},
                                {256, 16},
                                {384, 16},
                                {512, 16},
                                {256, 8},
                                {512, 8},
                                {256, 4},
                                {512, 4}})
    l.group_norm(channels, size);
  l.attention(256, 16);
  l.attention(256, 4);
  for (auto [channels, size] : {Images{128, 32}, {256, 16}, {256, 8}, {256, 4}}) {
    l.elementwise("add", 2, kAdd, channels, size);
    for (bool scale : {false, true}) l.scale_shift(channels, size, scale);
  }
  for (int64_t size : {4, 8, 16}) l.upsample(256, size);
  for (int64_t size : {4, 8, 16}) l.concat(256, 256, size);
  l.concat(256, 128, 16);
  l.concat(256, 128, 32);
  l.concat(128, 128, 32);
  l.optimizer(35'746'307, adam);
  return l.take();
}

// Stable Diffusion's on 256x256 pixels: its text encoder on 77 tokens, its UNet's transformers on latents of
// 32x32, 16x16 and 8x8.
std::vector<Work> text(int64_t batch, bool few) {
  WorkList l("text", batch);
  if (few) {
    l.token_embedding(50, 16, 64);
    l.layer_norm(16, 64);
    l.token_linear(16, 64, 64);
    l.token_attention(64, 64, 64, 2, true);
    l.geglu(16, 64);
    return l.take();
  }
  l.token_embedding(49'408, 77, 768);
  l.layer_norm(77, 768);
  l.token_linear(77, 768, 768);
  l.token_linear(77, 768, 3072);
  l.token_attention(77, 77, 768, 12, true);
  for (int64_t tokens = 1024, c = 320; c <= 1280; tokens /= 4, c *= 2) {
    l.layer_norm(tokens, c);
    l.token_linear(tokens, c, c);
    l.token_linear(77, 768, c);
    l.token_attention(tokens, tokens, c, 8);
    l.token_attention(tokens, 77, c, 8);
    l.token_linear(tokens, c, 8 * c);
    l.geglu(tokens, 4 * c);
    l.token_linear(tokens, 4 * c, c);
  }
  return l.take();
}

}  // namespace

std::vector<Work> works(int64_t batch, bool few) {
  std::vector<Work> all;
  for (auto net : {mnist, resnet, unet, text})
    for (Work& w : net(batch, few)) all.push_back(std::move(w));
  return all;
}

int64_t WorkTensors::bytes() const {
  int64_t sum = 0;
  for (const auto* specs : {&in, &out})
    for (const TensorSpec& s : *specs) sum += s.bytes();
  return sum;
}

WorkTensors tensors_for(const Work& w, const KernelInfo& info) {
  WorkTensors t{w.in, w.out};
  struct Side {
    std::vector<TensorSpec>& specs;
    const std::vector<int>& batch;
  };
  const Side sides[] = {{t.in, w.batch_in}, {t.out, w.batch_out}};
  bool wide = true;
  for (const Side& side : sides)
    for (int i : side.batch)
      if (const Shape& s = side.specs[static_cast<size_t>(i)].shape; s.rank() == 4) wide &= s[1] >= 16;
  Layout images = Layout::plain;
  if (info.layout == LayoutClass::nhwc || (info.layout == LayoutClass::any && wide)) images = Layout::nhwc;
  for (const Side& side : sides)
    for (int i : side.batch) {
      TensorSpec& s = side.specs[static_cast<size_t>(i)];
      if (s.shape.rank() == 4) s.layout = images;
    }
  const auto narrow = [&](std::vector<TensorSpec>& specs, const std::vector<int>& which) {
    for (int i : which)
      if (TensorSpec& s = specs[static_cast<size_t>(i)]; s.dtype == DType::f32) s.dtype = info.dtype;
  };
  narrow(t.in, w.bf16_in), narrow(t.out, w.bf16_out);
  return t;
}

bool is_for(const KernelInfo& info, const Work& w) {
  if (info.op.rfind("conv2d", 0) != 0 || info.name != "direct") return true;
  const Shape& weights = info.op == "conv2d_weight_grad" ? w.out[0].shape : w.in[1].shape;
  return weights[0] < 16 || weights[1] < 16;
}

void fill_input(const Work& w, size_t input, const View& v) {
  // Pseudo-random words: a multiplicative hash of the index, which fills large tensors fast.
  const auto random = [seed = static_cast<uint64_t>(input) + 1](int64_t i) {
    const uint64_t h = (static_cast<uint64_t>(i) + seed * 0x9E3779B97F4A7C15) * 0xD1342543DE82EF95;
    return static_cast<uint32_t>((h ^ h >> 29) * 0xBF58476D1CE4E5B9 >> 32);
  };
  const auto number = [&](int64_t i) { return static_cast<float>(random(i) % 2048) / 1024 - 1; };
  const int64_t n = v.spec.stored_elements();
  // The same numbers for the same elements in every layout. f(where it lies, which it is), on all cores.
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const auto each = [&](auto f) {
    const Shape& s = v.spec.shape;
    if (v.spec.layout != Layout::nhwc) return parallel_for(n, cores, [&](int64_t i) { f(i, i); });
    const int64_t c = s[1], pixels = s.elements_from(2);
    parallel_for(s[0], cores, [&](int64_t sample) {
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t k = 0; k < c; ++k) f((sample * pixels + p) * c + k, (sample * c + k) * pixels + p);
    });
  };
  switch (v.spec.dtype) {
    case DType::f32: {
      // Counts and variances are above 0: they come third or later, or are all that the op has.
      const bool positive = input >= 2 || w.op == "batch_norm_merge" || w.op == "batch_norm_running";
      const float shift = positive ? 1.5f : 0.0f;
      each([&](int64_t at, int64_t i) { v.as<float>()[at] = number(i) + shift; });
      break;
    }
    case DType::bf16:
      each([&](int64_t at, int64_t i) { v.as<bf16>()[at] = bf16(number(i)); });
      break;
    case DType::i32:
      each([&](int64_t at, int64_t i) { v.as<int32_t>()[at] = static_cast<int32_t>(random(i) % 10); });
      break;
    case DType::u8:
      if (w.in[input].shape.rank() == 1)
        *v.as<StepState>() = {.seed = 1, .step = 1, .global_samples = w.in[0].shape[0], .lr = 1e-3f};
      else
        each([&](int64_t at, int64_t i) { v.as<uint8_t>()[at] = static_cast<uint8_t>(random(i) % 4); });
      break;
  }
}

}  // namespace lockstep
