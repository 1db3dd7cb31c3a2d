// SPDX-License-Identifier: Apache-2.0
// A painter at one size of pictures: compiled for it, with weights of its own in memory.
#pragma once

#include <memory>
#include <string>

#include "launch/job/trained_model.h"
#include "models/diffusion/generate.h"

namespace lockstep::serve {

struct PictureSize {
  int64_t height = 0, width = 0;
  bool operator==(const PictureSize&) const = default;
  std::string text() const { return std::to_string(width) + "x" + std::to_string(height); }
};

// The painter's description for such pictures. Error config (78) E_SERVE_SIZE where it cannot draw them.
ModelDescription at_size(const ModelDescription& painter, const PictureSize& size);

struct Easel {
  // texts: of a model that reads text. Null: the easel's own.
  Easel(const TrainedModel& trained, const PictureSize& size, int64_t batch, Communicator& alone,
        diffusion::TextVectors* texts);

  // Pictures as pixels, of latents too. What the model throws where it fails.
  std::vector<float> decoded(std::vector<float> images, int64_t count);

  TrainedModel trained;
  std::unique_ptr<InferenceSession> session;
  std::unique_ptr<diffusion::TextVectors> own_texts;
  std::unique_ptr<diffusion::Evaluation> evaluation;
};

}  // namespace lockstep::serve
