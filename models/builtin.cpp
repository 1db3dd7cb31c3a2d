// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "models/autoencoder_kl.h"
#include "models/autoencoder_tiny.h"
#include "models/clip_text.h"
#include "models/model.h"
#include "models/objectives/diffusion.h"
#include "models/resnet.h"
#include "models/unet2d.h"
#include "models/unet2d_condition.h"

namespace lockstep {
namespace {

LayerSpec conv5(int64_t out, std::string name) {
  layer::Conv2d c;
  c.out_channels = out;
  c.kernel = {5, 5};
  return named("conv2d", c, std::move(name));
}
LayerSpec pool2() {
  layer::MaxPool2d p;
  p.kernel = {2, 2};
  return named("max_pool2d", p);
}
LayerSpec relu() { return named("relu", layer::Activation{"relu"}); }
LayerSpec linear(int64_t out, std::string name) {
  layer::Linear l;
  l.out_features = out;
  return named("linear", l, std::move(name));
}
LayerSpec dropout(bool channelwise) {
  layer::Dropout d;
  d.channelwise = channelwise;
  return named(channelwise ? "dropout2d" : "dropout", d);
}
LayerSpec flatten() { return named("flatten", layer::Flatten{}); }

// The half of the VAE that training needs; none of one without a posterior.
std::optional<ImageEncoder> image_encoder(const VaeConfig& vae) {
  const auto* kl = std::get_if<AutoencoderKlConfig>(&vae.kind);
  if (!kl) return std::nullopt;
  return ImageEncoder{[kl = *kl](ModelContext& context, ValueId image) { return encode(kl, context, image); },
                      kl->latent_channels, kl->scale(), kl->scaling_factor};
}

DiffusionNetworks diffusion_networks(const ModelSpec& spec) {
  if (!spec.reads_text()) return {make_unet2d(spec.unet), {}, {}};
  const TextToImageConfig& config = spec.text_to_image;
  const auto encode = [text = config.text_encoder](ModelContext& context, ValueId tokens) {
    return clip_text(text, context, tokens);
  };
  DiffusionNetworks networks{make_unet2d_condition(config.unet),
                             TextEncoder{encode, config.text_length, config.text_encoder.hidden_size},
                             {}};
  if (config.vae) {
    const auto decode_scaled = [vae = *config.vae](ModelContext& context, ValueId latents) {
      const auto decode_by = [&](const auto& kind) {
        const auto factor = static_cast<float>(1 / kind.scaling_factor);
        return decode(kind, context, context.builder.elementwise(Elt::scale, {latents}, factor));
      };
      return std::visit(decode_by, vae.kind);
    };
    networks.decoder = ImageDecoder{decode_scaled, config.vae->latent_channels(), config.vae->scale()};
  }
  return networks;
}

}  // namespace

std::shared_ptr<const Objective> make_objective(const ModelSpec& spec, const InputShape& input,
                                                const TrainingConfig& config) {
  if (!config.diffusion) return classification(make_classifier(spec, input.classes), input, config);
  DiffusionNetworks networks = diffusion_networks(spec);
  const auto& trained = config.trained;
  if (networks.text_encoder && !trained.empty())
    networks.text_encoder->frozen = std::find(trained.begin(), trained.end(), kTextEncoder) == trained.end();
  if (networks.decoder) networks.encoder = image_encoder(*spec.text_to_image.vae);
  if (networks.decoder && (!networks.encoder || trained.empty())) return nullptr;
  return diffusion::objective(std::move(networks), input, *config.diffusion);
}

std::vector<Program> make_programs(const ModelSpec& spec, const InputShape& input,
                                   const TrainingConfig& config) {
  if (config.diffusion) return diffusion::programs(diffusion_networks(spec), input, *config.diffusion);
  return {classify_program(make_classifier(spec, input.classes), input)};
}

std::vector<std::string> builtin_models() {
  std::vector<std::string> names = {"mnist_convnet", "mnist_convnet_dropout"};
  for (const auto& name : resnet_models()) names.push_back(name);
  for (const char* drawer : {"unet2d", kTextToImage}) names.emplace_back(drawer);
  return names;
}

std::vector<LayerSpec> layers_of(const ModelSpec& spec) {
  const std::string& name = spec.name;
  if (name.empty()) return spec.layers;
  if (name == "mnist_convnet")
    return {conv5(10, "conv1"), pool2(),         relu(), conv5(20, "conv2"), pool2(), relu(),
            flatten(),          linear(10, "fc")};
  if (name == "mnist_convnet_dropout")
    return {conv5(10, "conv1"),
            pool2(),
            relu(),
            conv5(20, "conv2"),
            dropout(true),
            pool2(),
            relu(),
            flatten(),
            linear(50, "fc1"),
            relu(),
            dropout(false),
            linear(10, "fc2"),
            named("log_softmax", layer::LogSoftmax{})};
  const auto resnets = resnet_models();
  if (std::find(resnets.begin(), resnets.end(), name) != resnets.end()) return resnet_layers(name, spec.stem);
  std::string names;
  for (const auto& m : builtin_models()) names += (names.empty() ? "" : ", ") + m;
  throw Error(Exit::config, "E_MODEL_NAME", fmt::format("no built-in model '{}'", name))
      .hint(fmt::format("there are {}; or write the model as layers:", names));
}

}  // namespace lockstep
