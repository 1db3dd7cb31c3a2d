// SPDX-License-Identifier: Apache-2.0
#include "kernels/diffusion/kernels.h"

namespace lockstep {

void register_diffusion(Registry& r) {
  diffusion::register_noise_highway(r);
  diffusion::register_noise_reference(r);
  diffusion::register_weighted_mse_highway(r);
  diffusion::register_weighted_mse_reference(r);
  diffusion::register_label_dropout(r);
  diffusion::register_posterior(r);
}

}  // namespace lockstep
