// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/kernel.h"

namespace lockstep {

// oneDNN's direct convolutions. Activations are plain or nhwc as the request's; where oneDNN wants them
// blocked (plain ones from a few channels up), and for its weights, they are reordered inside run().
std::unique_ptr<Kernel> make_conv2d_onednn(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_input_grad_onednn(const KernelRequest&);
std::unique_ptr<Kernel> make_conv2d_weight_grad_onednn(const KernelRequest&);

}  // namespace lockstep
