// SPDX-License-Identifier: Apache-2.0
// Features scaled and shifted by sample and channel: how a diffusion UNet tells its image the time
// (Perez et al.: arXiv 1709.07871).
//
// Op                    inputs             outputs
//   scale_shift         x, scale, shift    y                      y = x * (1 + scale) + shift
//                       x, shift           y                      y = x + shift
//   scale_shift_grad    dy, x, scale       dshift, dx, dscale
//                       dy                 dshift                 where dx is dy itself
// x, y, dx, dy [N, C, ...] in one layout; scale, shift and their gradients [N, C], one number for all pixels
// of a channel, in x's layout where that is lanes, else plain. dscale and dshift sum over a channel's pixels,
// in float and always in the same order. y may be x's buffer, dx may be dy's.
#pragma once
