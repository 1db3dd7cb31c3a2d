// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

void register_diffusion_noise(Registry&, Device);
void register_weighted_mse(Registry&, Device);
void register_label_dropout(Registry&, Device);
void register_posterior(Registry&, Device);

void register_diffusion(Registry& r, Device device) {
  register_diffusion_noise(r, device);
  register_weighted_mse(r, device);
  register_label_dropout(r, device);
  register_posterior(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
