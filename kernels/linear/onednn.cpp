// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear/onednn.h"

#include "kernels/vendor/onednn.h"

namespace lockstep {

namespace {

using dnnl::memory;
using tag = memory::format_tag;

struct LinearProblem {
  memory::desc x, w, y, b;
  memory::desc wanted_w;
  memory::desc forward_w;  // of x's type, where a gradient's is f32 beside bf16

  LinearProblem(const TensorSpec& xs, const TensorSpec& ws, const TensorSpec& ys)
      : x(OneDnnKernel::describe(samples(xs), tag::ab, xs.dtype)),
        w(OneDnnKernel::describe({ws.shape[0], ws.shape[1]}, tag::ab, ws.dtype)),
        y(OneDnnKernel::describe(samples(ys), tag::ab, ys.dtype)),
        b(OneDnnKernel::describe({ws.shape[0]}, tag::a)),
        wanted_w(OneDnnKernel::any({ws.shape[0], ws.shape[1]}, ws.dtype)),
        forward_w(OneDnnKernel::any({ws.shape[0], ws.shape[1]}, xs.dtype)) {}

  static memory::dims samples(const TensorSpec& s) { return {std::max<int64_t>(s.shape[0], 1), s.shape[1]}; }

  dnnl::inner_product_forward::primitive_desc forward(bool bias, Activation activation) const {
    const auto kind = dnnl::prop_kind::forward_training;
    const auto attributes = OneDnnKernel::attributes(activation);
    return bias ? forward_desc<dnnl::inner_product_forward>(attributes, kind, x, forward_w, b, y)
                : forward_desc<dnnl::inner_product_forward>(attributes, kind, x, forward_w, y);
  }
};

}  // namespace

std::unique_ptr<Kernel> make_linear_onednn(const KernelRequest& r) {
  return make_onednn(r, false, [&](OneDnnKernel& k) {
    const LinearProblem p(r.in[0], r.in[1], r.out[0]);
    const bool bias = r.in.size() > 2;
    const auto desc = p.forward(bias, r.params.as<LinearParams>().activation);
    std::unordered_map<int, memory> args = {{DNNL_ARG_SRC, k.input(0, p.x, p.x)},
                                            {DNNL_ARG_WEIGHTS, k.input(1, p.w, desc.weights_desc())},
                                            {DNNL_ARG_DST, k.output(0, p.y, p.y)}};
    if (bias) args[DNNL_ARG_BIAS] = k.input(2, p.b, p.b);
    k.add(desc, dnnl::inner_product_forward(desc), args);
  });
}

std::unique_ptr<Kernel> make_linear_input_grad_onednn(const KernelRequest& r) {
  return make_onednn(r, false, [&](OneDnnKernel& k) {
    const LinearProblem p(r.out[0], r.in[1], r.in[0]);
    using Backward = dnnl::inner_product_backward_data;
    const auto desc = backward_desc<Backward>(p.forward(false, Activation::none), p.x, p.wanted_w, p.y);
    k.add(desc, Backward(desc),
          {{DNNL_ARG_DIFF_DST, k.input(0, p.y, p.y)},
           {DNNL_ARG_WEIGHTS, k.input(1, p.w, desc.weights_desc())},
           {DNNL_ARG_DIFF_SRC, k.output(0, p.x, p.x)}});
  });
}

std::unique_ptr<Kernel> make_linear_weight_grad_onednn(const KernelRequest& r) {
  return make_onednn(r, true, [&](OneDnnKernel& k) {
    const LinearProblem p(r.in[0], r.out[0], r.in[1]);
    const bool bias = r.out.size() > 1;
    using Backward = dnnl::inner_product_backward_weights;
    const auto forward = p.forward(bias, Activation::none);
    const auto desc = bias ? backward_desc<Backward>(forward, p.x, p.wanted_w, p.b, p.y)
                           : backward_desc<Backward>(forward, p.x, p.wanted_w, p.y);
    std::unordered_map<int, memory> args = {
        {DNNL_ARG_SRC, k.input(0, p.x, p.x)},
        {DNNL_ARG_DIFF_DST, k.input(1, p.y, p.y)},
        {DNNL_ARG_DIFF_WEIGHTS, k.output(0, p.w, desc.diff_weights_desc())}};
    if (bias) args[DNNL_ARG_DIFF_BIAS] = k.output(1, p.b, p.b);
    k.add(desc, Backward(desc), args);
  });
}

}  // namespace lockstep
