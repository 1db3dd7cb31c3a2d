// SPDX-License-Identifier: Apache-2.0
// A trained diffusion model as a function: what it says of noisy images.
#pragma once

#include <span>
#include <vector>

#include "runtime/training/session.h"

namespace lockstep::diffusion {

class Denoiser {
 public:
  // `images`: as many as one call will bring at most, on the rank that brings most. Collective, like
  // Session's prepare functions; the calls are not.
  Denoiser(Session& session, int64_t images);

  // x, out: images [n, C, H, W] one after the other; labels [n], or none for a model without classes. Runs in
  // parts of batch() images.
  void operator()(std::span<const float> x, float timestep, std::span<const int32_t> labels,
                  std::span<float> out);

  int64_t elements() const { return elements_; }  // of one image
  int64_t batch() const { return batch_; }

 private:
  Session& session_;
  int64_t elements_ = 0, batch_ = 0;
  std::vector<float> timesteps_;
  std::vector<int32_t> no_labels_;
};

}  // namespace lockstep::diffusion
