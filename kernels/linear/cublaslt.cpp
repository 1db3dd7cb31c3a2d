// SPDX-License-Identifier: Apache-2.0
// cuBLASLt's matrix products: fp32 without TF32, or bf16 with sums, biases and weight gradients in fp32. Its
// epilogue adds an fp32 bias to fp32 outputs; bf16 outputs and activations are finished by ours.
#include "kernels/vendor/cublaslt.h"

#include "kernels/core/kernel.h"
#include "kernels/gpu/library_parts.h"
#include "kernels/linear/linear.h"

namespace lockstep {
namespace {

// y [N, M], x [N, K], w [M, K].
class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : samples_(r.in[0].shape[0]),
        activation_(r.params.as<LinearParams>().activation),
        fused_(r.in.size() > 2 && activation_ == Activation::none && r.out[0].dtype == DType::f32) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t n = std::max<int64_t>(samples_, 1), m = r.in[1].shape[0], k = r.in[1].shape[1];
    return product_.prepare(lt, {n, k}, {m, k, true}, r.in[0].dtype, r.out[0].dtype, fused_);
  }
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    product_.run(args.in[0].data, args.in[1].data, fused_ ? bias : nullptr, args.out[0].data, args.workspace,
                 args.stream);
    if (!fused_ && (bias || activation_ != Activation::none))
      cuda::add_bias_and_activate(args.out[0], bias, activation_, args.stream);
  }

 private:
  int64_t samples_;
  Activation activation_;
  bool fused_;
  MatrixProduct product_;
};

class InputGrad final : public Kernel {
 public:
  explicit InputGrad(const KernelRequest& r) : samples_(r.in[0].shape[0]) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t n = std::max<int64_t>(samples_, 1), m = r.in[1].shape[0], k = r.in[1].shape[1];
    return product_.prepare(lt, {n, m}, {m, k}, r.in[0].dtype, r.out[0].dtype, false);
  }
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) return;
    product_.run(args.in[0].data, args.in[1].data, nullptr, args.out[0].data, args.workspace, args.stream);
  }

 private:
  int64_t samples_;
  MatrixProduct product_;
};

// Workspace: the product's, then the bias's partial sums.
class WeightGrad final : public Kernel {
 public:
  explicit WeightGrad(const KernelRequest& r)
      : samples_(r.in[0].shape[0]),
        bias_bytes_(r.out.size() > 1 ? cuda::bias_grad_workspace_bytes(r.in[1]) : 0) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t n = std::max<int64_t>(samples_, 1), m = r.out[0].shape[0], k = r.out[0].shape[1];
    return product_.prepare(lt, {n, m, true}, {n, k}, r.in[0].dtype, DType::f32, false);
  }
  int64_t workspace_bytes() const override { return gpu_aligned(product_.workspace_bytes()) + bias_bytes_; }

  void run(const KernelArgs& args) override {
    if (samples_ == 0) {
      for (const View& v : args.out) cuda::set_to_zero(v, args.stream);
      return;
    }
    product_.run(args.in[1].data, args.in[0].data, nullptr, args.out[0].data, args.workspace, args.stream);
    if (args.out.size() > 1)
      cuda::bias_grad(args.in[1], args.out[1].as<float>(),
                      static_cast<std::byte*>(args.workspace) + gpu_aligned(product_.workspace_bytes()),
                      args.stream);
  }

 private:
  int64_t samples_, bias_bytes_;
  MatrixProduct product_;
};

// Activations and weights of one type, plain.
bool served(DType type, std::initializer_list<TensorSpec> tensors) {
  for (const TensorSpec& s : tensors)
    if (s.dtype != type || s.layout != Layout::plain) return false;
  return true;
}

template <class K>
std::unique_ptr<Kernel> prepared(const KernelRequest& r) {
  CublasLt* const lt = CublasLt::get();
  if (!lt) return nullptr;
  auto kernel = std::make_unique<K>(r);
  return kernel->prepare(*lt, r) ? std::move(kernel) : nullptr;
}

}  // namespace

void register_linear_cublaslt(Registry& r) {
  for (DType type : {DType::f32, DType::bf16}) {
    const auto add = [&](const char* op, auto make) {
      r.add({.op = op,
             .name = "cublaslt",
             .device = Device::cuda,
             .layout = LayoutClass::plain,
             .dtype = type,
             .bit_exact = {.threads = true},
             .make = make});
    };
    add("linear", [type](const KernelRequest& q) -> std::unique_ptr<Kernel> {
      return served(type, {q.in[0], q.in[1], q.out[0]}) ? prepared<Forward>(q) : nullptr;
    });
    add("linear_input_grad", [type](const KernelRequest& q) -> std::unique_ptr<Kernel> {
      return served(type, {q.in[0], q.in[1], q.out[0]}) ? prepared<InputGrad>(q) : nullptr;
    });
    add("linear_weight_grad", [type](const KernelRequest& q) -> std::unique_ptr<Kernel> {
      return served(type, {q.in[0], q.in[1]}) && q.out[0].dtype == DType::f32 ? prepared<WeightGrad>(q)
                                                                              : nullptr;
    });
  }
}

}  // namespace lockstep
