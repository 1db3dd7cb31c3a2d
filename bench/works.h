// SPDX-License-Identifier: Apache-2.0
// What the models ask of the kernels: ops with their shapes, for the benches and the report.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/core/kernel.h"

namespace lockstep {

struct Work {
  std::string net, shape;  // "unet", "res 128 to 128, 32x32"
  std::string op;
  Params params;
  std::vector<TensorSpec> in, out;            // plain; f32 unless bf16 is meant for every kernel
  std::vector<int> batch_in, batch_out;       // these follow a kernel's layout
  std::vector<int> bf16_in, bf16_out;         // of these, those that are f32 are bf16 in a bf16 kernel
  std::vector<std::pair<int, int>> in_place;  // (input, output) pairs that are one tensor, as in a step
  double flops = 0;                           // two for each multiply-add of the definition, padding counted
};

// The article's nets on MNIST ("mnist"), ResNet-18 for CIFAR ("resnet"), DDPM's UNet for CIFAR ("unet"), and the
// tokens of Stable Diffusion ("text").
// few: one shape of each op and net, as small as shows a kernel's way of working.
std::vector<Work> works(int64_t batch, bool few = false);

// The tensors as a kernel of this dtype and layout class has them. Where it takes any layout, images of 16
// channels and more are nhwc, as plans have them.
struct WorkTensors {
  std::vector<TensorSpec> in, out;
  int64_t bytes() const;
};
WorkTensors tensors_for(const Work&, const KernelInfo&);

// Whether a kernel is meant for such shapes: direct convolutions are for few channels.
bool is_for(const KernelInfo&, const Work&);

// Fills an input with numbers that the op can take.
void fill_input(const Work&, size_t input, const View&);

}  // namespace lockstep
