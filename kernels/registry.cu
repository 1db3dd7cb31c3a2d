// SPDX-License-Identifier: Apache-2.0
// The rooms with GPU kernels: two lines each.
#include "kernels/core/kernel.h"
#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

void register_attention(Registry&, Device);
void register_batch_norm(Registry&, Device);
void register_cast(Registry&, Device);
void register_concat(Registry&, Device);
void register_conv2d(Registry&, Device);
void register_diffusion(Registry&, Device);
void register_dropout(Registry&, Device);
void register_elementwise(Registry&, Device);
void register_embedding(Registry&, Device);
void register_geglu(Registry&, Device);
void register_group_norm(Registry&, Device);
void register_image_augment(Registry&, Device);
void register_image_normalize(Registry&, Device);
void register_layer_norm(Registry&, Device);
void register_linear(Registry&, Device);
void register_loss(Registry&, Device);
void register_optimizer(Registry&, Device);
void register_pool2d(Registry&, Device);
void register_reorder(Registry&, Device);
void register_resample(Registry&, Device);
void register_scale_shift(Registry&, Device);
void register_timestep_embedding(Registry&, Device);

void register_rooms(Registry& r, Device d) {
  register_attention(r, d);
  register_batch_norm(r, d);
  register_cast(r, d);
  register_concat(r, d);
  register_conv2d(r, d);
  register_diffusion(r, d);
  register_dropout(r, d);
  register_elementwise(r, d);
  register_embedding(r, d);
  register_geglu(r, d);
  register_group_norm(r, d);
  register_image_augment(r, d);
  register_image_normalize(r, d);
  register_layer_norm(r, d);
  register_linear(r, d);
  register_loss(r, d);
  register_optimizer(r, d);
  register_pool2d(r, d);
  register_reorder(r, d);
  register_resample(r, d);
  register_scale_shift(r, d);
  register_timestep_embedding(r, d);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
