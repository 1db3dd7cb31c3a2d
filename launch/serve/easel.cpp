// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/easel.h"

#include "models/objectives/diffusion.h"

namespace lockstep::serve {

ModelDescription at_size(const ModelDescription& painter, const PictureSize& size) {
  ModelDescription m = painter;
  if (size == PictureSize{m.input.height, m.input.width}) return m;
  const auto refuse = [&](const std::string& why) {
    return Error(Exit::config, "E_SERVE_SIZE", fmt::format("--size {}: {}", size.text(), why));
  };
  if (!m.model.reads_text())
    throw refuse(fmt::format("the model draws {}x{} alone", m.input.width, m.input.height));
  const auto& vae = m.model.text_to_image.vae;
  if (vae && (size.height % vae->scale() != 0 || size.width % vae->scale() != 0))
    throw refuse(fmt::format("sides are multiples of {}, as a latent's are", vae->scale()));
  m.input.height = size.height, m.input.width = size.width;
  return m;
}

Easel::Easel(const TrainedModel& model, const PictureSize& size, int64_t batch, Communicator& alone,
             diffusion::TextVectors* texts)
    : trained(model) {
  trained.description = at_size(model.description, size);
  session = open_session(trained, {.largest_batch = batch}, alone);
  if (trained.tokenizer && !texts) {
    own_texts = std::make_unique<diffusion::TextVectors>(*session);
    texts = own_texts.get();
  }
  evaluation = std::make_unique<diffusion::Evaluation>(diffusion::predictor(*session, texts));
}

std::vector<float> Easel::decoded(std::vector<float> images, int64_t count) {
  return session->has_program(diffusion::kDecode) ? diffusion::decoded(*session, images, count) : images;
}

}  // namespace lockstep::serve
