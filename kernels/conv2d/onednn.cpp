// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/onednn.h"

#include "kernels/vendor/onednn.h"

namespace lockstep {

namespace {

using dnnl::memory;
using tag = memory::format_tag;

// The convolution that all three ops are about, in oneDNN's words.
struct Problem {
  memory::dims strides, dilations, pad_first, pad_last;
  memory::desc x, w, y, b;                    // as they are stored
  memory::desc wanted_x, wanted_w, wanted_y;  // nhwc stays as it is: oneDNN's kernels take it
  memory::desc forward_w;                     // of x's type, where a gradient's is f32 beside bf16
  bool bias = false;

  Problem(const Conv2dParams& p, const TensorSpec& xs, const TensorSpec& weight, const TensorSpec& ys,
          bool has_bias)
      : strides{p.stride_h, p.stride_w},
        dilations{p.dilation_h - 1, p.dilation_w - 1},
        pad_first{p.pad_top, p.pad_left},
        pad_last{p.pad_bottom, p.pad_right},
        bias(has_bias) {
    const auto image = [](const TensorSpec& s) {
      return memory::dims{std::max<int64_t>(s.shape[0], 1), s.shape[1], s.shape[2], s.shape[3]};
    };
    const Shape& ws = weight.shape;
    const bool nhwc = xs.layout == Layout::nhwc;
    const tag stored = nhwc ? tag::nhwc : tag::nchw;
    x = OneDnnKernel::describe(image(xs), stored, xs.dtype);
    y = OneDnnKernel::describe(image(ys), stored, ys.dtype);
    wanted_x = nhwc ? x : OneDnnKernel::any(image(xs), xs.dtype);
    wanted_y = nhwc ? y : OneDnnKernel::any(image(ys), ys.dtype);
    const bool grouped = p.groups > 1;
    const memory::dims dims = grouped ? memory::dims{p.groups, ws[0] / p.groups, ws[1], ws[2], ws[3]}
                                      : memory::dims{ws[0], ws[1], ws[2], ws[3]};
    w = OneDnnKernel::describe(dims, grouped ? tag::goihw : tag::oihw, weight.dtype);
    wanted_w = OneDnnKernel::any(dims, weight.dtype);
    forward_w = OneDnnKernel::any(dims, xs.dtype);
    if (has_bias) b = OneDnnKernel::describe({ws[0]}, tag::x);
  }

  dnnl::convolution_forward::primitive_desc forward(dnnl::prop_kind kind, Activation activation) const {
    const auto direct = dnnl::algorithm::convolution_direct;
    const auto attributes = OneDnnKernel::attributes(activation);
    return bias ? forward_desc<dnnl::convolution_forward>(attributes, kind, direct, wanted_x, forward_w, b,
                                                          wanted_y, strides, dilations, pad_first, pad_last)
                : forward_desc<dnnl::convolution_forward>(attributes, kind, direct, wanted_x, forward_w,
                                                          wanted_y, strides, dilations, pad_first, pad_last);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_conv2d_onednn(const KernelRequest& r) {
  return make_onednn(r, false, [&](OneDnnKernel& k) {
    const auto& params = r.params.as<Conv2dParams>();
    const Problem p(params, r.in[0], r.in[1], r.out[0], r.in.size() > 2);
    const auto desc = p.forward(dnnl::prop_kind::forward_training, params.activation);
    std::unordered_map<int, memory> args = {{DNNL_ARG_SRC, k.input(0, p.x, desc.src_desc())},
                                            {DNNL_ARG_WEIGHTS, k.input(1, p.w, desc.weights_desc())},
                                            {DNNL_ARG_DST, k.output(0, p.y, desc.dst_desc())}};
    if (p.bias) args[DNNL_ARG_BIAS] = k.input(2, p.b, p.b);
    k.add(desc, dnnl::convolution_forward(desc), args);
  });
}

std::unique_ptr<Kernel> make_conv2d_input_grad_onednn(const KernelRequest& r) {
  return make_onednn(r, false, [&](OneDnnKernel& k) {
    const Problem p(r.params.as<Conv2dParams>(), r.out[0], r.in[1], r.in[0], false);
    using Backward = dnnl::convolution_backward_data;
    const auto desc = backward_desc<Backward>(p.forward(dnnl::prop_kind::forward_training, Activation::none),
                                              dnnl::algorithm::convolution_direct, p.wanted_x, p.wanted_w,
                                              p.wanted_y, p.strides, p.dilations, p.pad_first, p.pad_last);
    k.add(desc, Backward(desc),
          {{DNNL_ARG_DIFF_DST, k.input(0, p.y, desc.diff_dst_desc())},
           {DNNL_ARG_WEIGHTS, k.input(1, p.w, desc.weights_desc())},
           {DNNL_ARG_DIFF_SRC, k.output(0, p.x, desc.diff_src_desc())}});
  });
}

std::unique_ptr<Kernel> make_conv2d_weight_grad_onednn(const KernelRequest& r) {
  return make_onednn(r, true, [&](OneDnnKernel& k) {
    const Problem p(r.params.as<Conv2dParams>(), r.in[0], r.out[0], r.in[1], r.out.size() > 1);
    const auto direct = dnnl::algorithm::convolution_direct;
    using Backward = dnnl::convolution_backward_weights;
    const auto forward = p.forward(dnnl::prop_kind::forward_training, Activation::none);
    const auto desc = p.bias
                          ? backward_desc<Backward>(forward, direct, p.wanted_x, p.wanted_w, p.b, p.wanted_y,
                                                    p.strides, p.dilations, p.pad_first, p.pad_last)
                          : backward_desc<Backward>(forward, direct, p.wanted_x, p.wanted_w, p.wanted_y,
                                                    p.strides, p.dilations, p.pad_first, p.pad_last);
    std::unordered_map<int, memory> args = {
        {DNNL_ARG_SRC, k.input(0, p.x, desc.src_desc())},
        {DNNL_ARG_DIFF_DST, k.input(1, p.y, desc.diff_dst_desc())},
        {DNNL_ARG_DIFF_WEIGHTS, k.output(0, p.w, desc.diff_weights_desc())}};
    if (p.bias) args[DNNL_ARG_DIFF_BIAS] = k.output(1, p.b, p.b);
    k.add(desc, Backward(desc), args);
  });
}

}  // namespace lockstep
