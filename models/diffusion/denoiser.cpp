// SPDX-License-Identifier: Apache-2.0
#include "models/diffusion/denoiser.h"

#include <algorithm>

namespace lockstep::diffusion {
namespace {

// Activations of one batch at most: enough for full vectors and threads, small beside what training took.
constexpr int64_t kActivationBytes = int64_t{1} << 30;
constexpr int64_t kMostImages = 64;

}  // namespace

Denoiser::Denoiser(Session& session, int64_t images) : session_(session) {
  session_.prepare_prediction(std::min(images, kMostImages));
  const auto& in = session_.options().input;
  elements_ = in.channels * in.height * in.width;
  const int64_t one = std::max<int64_t>(1, session_.prediction(1).plan->arena_bytes);
  batch_ = std::clamp<int64_t>(kActivationBytes / one, 1, std::min(images, kMostImages));
  timesteps_.resize(static_cast<size_t>(batch_));
  no_labels_.resize(static_cast<size_t>(batch_));
  session_.prediction(batch_);
}

void Denoiser::operator()(std::span<const float> x, float timestep, std::span<const int32_t> labels,
                          std::span<float> out) {
  const auto images = static_cast<int64_t>(x.size()) / elements_;
  std::fill(timesteps_.begin(), timesteps_.end(), timestep);
  for (int64_t at = 0; at < images; at += batch_) {
    const int64_t n = std::min(batch_, images - at);
    auto& plan = session_.prediction(n);
    StepInputs inputs;
    inputs.images = x.data() + at * elements_;
    inputs.labels = labels.empty() ? no_labels_.data() : labels.data() + at;
    inputs.timesteps = timesteps_.data();
    inputs.state.training = 0;
    session_.executor().run(*plan.bound, inputs);
    const float* said = session_.executor().output(*plan.bound, "prediction").as<float>();
    std::copy_n(said, n * elements_, out.data() + at * elements_);
  }
}

}  // namespace lockstep::diffusion
