// SPDX-License-Identifier: Apache-2.0
#include "models/objectives/diffusion.h"

#include "kernels/diffusion/label_dropout.h"
#include "kernels/diffusion/noise.h"
#include "kernels/diffusion/posterior.h"
#include "models/objectives/image_input.h"
#include "runtime/graph/ports.h"

namespace lockstep::diffusion {
namespace {

constexpr std::string_view kTarget = "target", kWeights = "weights";

DiffusionNoiseParams noise_params(const DiffusionConfig& d) {
  const auto prediction = d.prediction == "v_prediction" ? Prediction::v_prediction
                          : d.prediction == "sample"     ? Prediction::sample
                                                         : Prediction::epsilon;
  return {d.alphas_cumprod, prediction, d.snr_gamma};
}

// What labels may be: the data's classes and, where some are hidden, the number that says so.
int64_t label_values(const InputShape& input, const DiffusionConfig& config) {
  return input.classes + (config.label_dropout > 0 ? 1 : 0);
}

ValueId add_prediction(ModelContext& context, const DiffusionNetworks& networks,
                       const DenoiserInputs& inputs) {
  if (networks.text_encoder) context.builder.set_network(kUNet);
  const ValueId prediction = networks.denoiser(context, inputs);
  context.builder.set_network("");
  const Shape &s = context.builder.spec(prediction).shape, &image = context.builder.spec(inputs.sample).shape;
  if (!(s == image))
    throw Error(Exit::config, "E_SHAPE",
                fmt::format("the model ends in {}, its images are {}", s.text(), image.text()));
  return prediction;
}

ValueId add_token_input(ModelContext& context, int64_t batch, int64_t tokens) {
  return context.builder.input(kTokens, {DType::i32, {batch, tokens}, Layout::plain}, true);
}

ValueId add_text(ModelContext& context, const TextEncoder& encoder, ValueId tokens) {
  context.builder.set_network(kTextEncoder);
  const ValueId text = encoder.network(context, tokens);
  context.builder.set_network("");
  return text;
}

// Of an image in [-1, 1].
ValueId add_moments(ModelContext& context, const ImageEncoder& encoder, ValueId image) {
  context.builder.set_network(kVae);
  const ValueId moments = encoder.network(context, image);
  context.builder.set_network("");
  return moments;
}

void expect_whole_latents(const InputShape& input, int64_t scale) {
  if (input.height % scale == 0 && input.width % scale == 0) return;
  throw Error(
      Exit::config, "E_LATENTS",
      fmt::format(
          "the images are {}x{}, but the VAE makes one latent of {}x{} pixels: sides are multiples of {}",
          input.height, input.width, scale, scale, scale))
      .hint("resize and crop make pictures of a folder such a size");
}

Program with_output(std::string_view name, ForwardFunction forward, const char* output) {
  return {std::string(name), std::move(forward), [output](GraphBuilder& b, NamedValues& values) {
            b.set_scope("outputs");
            add_output(b, values.at(kResult), output);
          }};
}

Program encode_text_program(const TextEncoder& encoder) {
  const auto forward = [encoder](ModelContext& context, int64_t batch, NamedValues& values) {
    values[kResult] = add_text(context, encoder, add_token_input(context, batch, encoder.length));
  };
  return with_output(kEncodeText, forward, kText);
}

Program encode_image_program(const ImageEncoder& encoder, const InputShape& input) {
  const auto forward = [encoder, input](ModelContext& context, int64_t batch, NamedValues& values) {
    values[kResult] = add_moments(context, encoder, add_image_input(context, batch, input));
  };
  return with_output(kEncodeImage, forward, kMoments);
}

class Diffusion : public Objective {
 public:
  Diffusion(DiffusionNetworks networks, InputShape input, DiffusionConfig config)
      : networks_(std::move(networks)), input_(std::move(input)), config_(std::move(config)) {
    if (networks_.encoder) expect_whole_latents(input_, networks_.encoder->scale);
  }

  std::string name() const override { return "diffusion"; }
  bool counts_right_answers() const override { return false; }

  void forward(ModelContext& context, int64_t batch, NamedValues& values) const override {
    GraphBuilder& b = context.builder;
    const ValueId image = add_drawn(context, batch);
    DenoiserInputs in;
    const auto& encoder = networks_.text_encoder;
    const bool encoded = encoder && encoder->frozen && context.training && input_.encoded;
    if (encoded)
      in.text = b.input(kText, {DType::f32, {batch, encoder->length, encoder->width}, Layout::plain}, true);
    const ValueId tokens = encoder && !encoded ? add_token_input(context, batch, encoder->length) : kNoValue;
    if (!encoder)
      in.labels = add_label_input(context, batch), in.label_values = label_values(input_, config_);
    const auto noised = b.add("diffusion_noise", noise_params(config_), {image, context.step_state});
    in.sample = noised[0], values[kTarget] = noised[1];
    in.timesteps = values[kTimesteps] = noised[2], values[kWeights] = noised[3];
    if (context.training && config_.label_dropout > 0)
      in.labels = b.add1(
          "label_dropout",
          LabelDropoutParams{static_cast<float>(config_.label_dropout), static_cast<int32_t>(input_.classes)},
          {in.labels, context.step_state});
    if (tokens != kNoValue) in.text = add_text(context, *encoder, tokens);
    values[kResult] = add_prediction(context, networks_, in);
  }

  ValueId loss(GraphBuilder& b, NamedValues& values, bool) const override {
    const ValueId result = values.at(kResult);
    const ValueId target = values[kTarget] = b.reorder(values.at(kTarget), b.spec(result).layout);
    return b.add1("weighted_mse", NoParams{}, {result, target, values.at(kWeights)});
  }
  ValueId loss_gradient(GraphBuilder& b, const NamedValues& values) const override {
    const ValueId result = values.at(kResult);
    return b.add_as("weighted_mse_grad", NoParams{},
                    {result, values.at(kTarget), values.at(kWeights), values.at(kStepState)},
                    {{b.spec(result), true, true}})[0];
  }

  std::vector<Program> encoders() const override {
    std::vector<Program> all;
    if (!input_.encoded) return all;
    all.push_back(encode_image_program(*networks_.encoder, input_));
    if (networks_.text_encoder->frozen) all.push_back(encode_text_program(*networks_.text_encoder));
    return all;
  }

  void outputs(GraphBuilder& b, NamedValues& values) const override {
    add_output(b, values.at(kResult), "prediction");
    add_output(b, values.at(kTarget), "target");
    add_output(b, values.at(kTimesteps), "timesteps");
  }
  // Squared errors by timestep: sums in [0, kBands), counts behind them.
  size_t sums() const override { return 2 * Score::kBands; }
  void add(const Output& output, std::span<const int32_t>, std::span<double> sums) const override {
    const View &p = output("prediction"), &t = output("target");
    const auto* steps = output("timesteps").as<int32_t>();
    const auto timesteps = static_cast<int64_t>(config_.alphas_cumprod.size());
    const int64_t n = p.dim(0), elements = p.shape().elements_from(1);
    for (int64_t i = 0; i < n; ++i) {
      double square = 0;
      for (int64_t e = i * elements; e < (i + 1) * elements; ++e) {
        const double d = double{p.as<float>()[e]} - double{t.as<float>()[e]};
        square += d * d;
      }
      const auto band = static_cast<size_t>(steps[i] * Score::kBands / timesteps);
      sums[band] += square / static_cast<double>(elements);
      sums[Score::kBands + band] += 1;
    }
  }
  void finish(std::span<const double> sums, Score& score) const override {
    score.bands = std::array<Score::Band, Score::kBands>{};
    for (size_t i = 0; i < Score::kBands; ++i) {
      const double count = sums[Score::kBands + i];
      (*score.bands)[i] = {count > 0 ? sums[i] / count : 0, static_cast<int64_t>(count)};
    }
  }

 private:
  // What the denoiser learns to draw: images, or samples of their latents.
  ValueId add_drawn(ModelContext& context, int64_t batch) const {
    const auto& encoder = networks_.encoder;
    if (!encoder) return add_image_input(context, batch, input_);
    const Shape shape = {batch, 2 * encoder->channels, input_.height / encoder->scale,
                         input_.width / encoder->scale};
    GraphBuilder& b = context.builder;
    const ValueId moments = context.training && input_.encoded
                                ? b.input(kMoments, {DType::f32, shape, Layout::plain}, true)
                                : add_moments(context, *encoder, add_image_input(context, batch, input_));
    b.set_scope("latents");
    return b.add1("posterior_sample", PosteriorParams{static_cast<float>(encoder->scaling_factor)},
                  {moments, context.step_state});
  }

  DiffusionNetworks networks_;
  InputShape input_;
  DiffusionConfig config_;
};

// What the denoiser draws: pixels, or latents of them.
ValueId add_drawn_input(GraphBuilder& b, const DiffusionNetworks& networks, const InputShape& input,
                        int64_t batch) {
  Shape shape = {batch, input.channels, input.height, input.width};
  if (const auto& d = networks.decoder)
    shape = {batch, d->channels, input.height / d->scale, input.width / d->scale};
  return b.input(kImages, {DType::f32, shape, Layout::plain}, true);
}

Program decode_program(const DiffusionNetworks& networks, const InputShape& input) {
  const auto forward = [networks, input](ModelContext& context, int64_t batch, NamedValues& values) {
    GraphBuilder& b = context.builder;
    const ValueId latents = b.elementwise(Elt::copy, {add_drawn_input(b, networks, input, batch)});
    b.set_network(kVae);
    values[kResult] = networks.decoder->network(context, latents);
    b.set_network("");
  };
  return with_output(kDecode, forward, "image");
}

}  // namespace

std::shared_ptr<const Objective> objective(DiffusionNetworks networks, InputShape input,
                                           const DiffusionConfig& config) {
  return std::make_shared<Diffusion>(std::move(networks), std::move(input), config);
}

std::vector<Program> programs(const DiffusionNetworks& networks, const InputShape& input,
                              const DiffusionConfig& config) {
  const auto denoise = [networks, input, labels = label_values(input, config)](
                           ModelContext& context, int64_t batch, NamedValues& values) {
    GraphBuilder& b = context.builder;
    DenoiserInputs in;
    const ValueId images = add_drawn_input(b, networks, input, batch);
    in.timesteps = b.input(kTimesteps, {DType::f32, {batch}, Layout::plain}, true);
    if (const auto& encoder = networks.text_encoder)
      in.text = b.input(kText, {DType::f32, {batch, encoder->length, encoder->width}, Layout::plain}, true);
    else
      in.labels = add_label_input(context, batch), in.label_values = labels;
    in.sample = b.elementwise(Elt::copy, {images});
    values[kResult] = add_prediction(context, networks, in);
  };
  std::vector<Program> all = {with_output(kDenoise, denoise, "prediction")};
  if (networks.text_encoder) all.push_back(encode_text_program(*networks.text_encoder));
  if (networks.decoder) all.push_back(decode_program(networks, input));
  return all;
}

}  // namespace lockstep::diffusion
