#include "kernels/conv2d/lanes.h"
#include "kernels/conv2d/onednn.h"
#include "kernels/conv2d/reference.h"
#include "kernels/conv2d/winograd.h"
#include "kernels/core/kernel.h"

namespace lockstep {

void register_conv2d(Registry& r) {
  const auto lanes = [&](const char* op, auto make, bool shard) {
    r.add({.op = op,
           .name = "lanes",
           .layout = LayoutClass::lanes,
           .bit_exact = {.threads = true, .shard = shard},
           .make = make});
  };
  lanes("conv2d", make_conv2d_lanes, true);
  lanes("conv2d_input_grad", make_conv2d_input_grad_lanes, true);
  lanes("conv2d_weight_grad", make_conv2d_weight_grad_lanes, false);

  const auto winograd = [&](const char* op, auto make, bool shard) {
    r.add({.op = op,
           .name = "winograd",
           .layout = LayoutClass::nhwc,
           .bit_exact = {.threads = true, .shard = shard},
           .make = make});
  };
  winograd("conv2d", make_conv2d_winograd, true);
  winograd("conv2d_input_grad", make_conv2d_input_grad_winograd, true);
  winograd("conv2d_weight_grad", make_conv2d_weight_grad_winograd, false);

  const auto onednn = [&](const char* op, auto make) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      r.add({.op = op, .name = "onednn", .layout = LayoutClass::plain, .dtype = dtype, .make = make});
      r.add({.op = op, .name = "onednn_nhwc", .layout = LayoutClass::nhwc, .dtype = dtype, .make = make});
    }
  };
  onednn("conv2d", make_conv2d_onednn);
  onednn("conv2d_input_grad", make_conv2d_input_grad_onednn);
  onednn("conv2d_weight_grad", make_conv2d_weight_grad_onednn);

  const auto reference = [&](const char* op, auto f, bool shard) {
    r.add({.op = op,
           .name = "reference",
           .layout = LayoutClass::any,
           .bit_exact = {.threads = true, .shard = shard},
           .make = stateless<Conv2dParams>(f)});
  };
  reference("conv2d", conv2d_reference, true);
  reference("conv2d_input_grad", conv2d_input_grad_reference, true);
  reference("conv2d_weight_grad", conv2d_weight_grad_reference, false);
}

}  // namespace lockstep
