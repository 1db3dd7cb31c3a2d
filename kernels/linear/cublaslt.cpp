// SPDX-License-Identifier: Apache-2.0
// cuBLASLt's matrix products: fp32 without TF32, or bf16 with sums, biases and weight gradients in fp32. Its
// epilogue adds an fp32 bias to fp32 outputs; bf16 outputs and activations are finished by ours.
#include "kernels/vendor/cublaslt.h"

#include <numeric>

#include "kernels/core/kernel.h"
#include "kernels/gpu/library_parts.h"
#include "kernels/linear/linear.h"
#include "kernels/linear/tokens.h"

namespace lockstep {
namespace {

// A product over a batch. What cuBLASLt offers may differ from batch to batch, and a kernel must not decline
// for its batch: there is one where it has an algorithm for a sample, and it takes those for all samples at
// once. Are there none, it works sample by sample.
class BatchProduct {
 public:
  // `prepare` is a function of product, number of samples and the addresses' alignment; `row_bytes`: of a
  // sample, in each of the matrices that have a row for it. False: there is none.
  template <class Prepare>
  bool prepare(int64_t samples, std::initializer_list<int64_t> row_bytes, const Prepare& prepare) {
    int64_t alignment = kCublasLtAlignment;
    for (int64_t bytes : row_bytes) alignment = std::gcd(alignment, bytes);
    MatrixProduct one;
    if (!prepare(one, 1, static_cast<uint32_t>(alignment))) return false;
    samples_ = samples, part_ = std::max<int64_t>(samples, 1);
    if (prepare(product_, part_, kCublasLtAlignment)) return true;
    product_ = std::move(one), part_ = 1;
    return true;
  }
  int64_t workspace_bytes() const { return product_.workspace_bytes(); }

  // Calls f(product, first sample) for each part of the batch.
  template <class F>
  void each_part(const F& f) {
    for (int64_t first = 0; first < samples_; first += part_) f(product_, first);
  }

 private:
  int64_t samples_ = 0, part_ = 1;
  MatrixProduct product_;
};

int64_t row_bytes(const TensorSpec& s) { return s.shape.elements_from(1) * size_of(s.dtype); }
void* row(const View& v, int64_t sample) { return v.as<std::byte>() + sample * row_bytes(v.spec); }

// y [N, M], x [N, K], w [M, K].
class Forward final : public Kernel {
 public:
  explicit Forward(const KernelRequest& r)
      : activation_(r.params.as<LinearParams>().activation),
        fused_(r.in.size() > 2 && activation_ == Activation::none && r.out[0].dtype == DType::f32) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t m = r.in[1].shape[0], k = r.in[1].shape[1];
    return product_.prepare(
        r.in[0].shape[0], {row_bytes(r.in[0]), row_bytes(r.out[0])},
        [&](MatrixProduct& p, int64_t n, uint32_t alignment) {
          return p.prepare(lt, {n, k}, {m, k, true}, r.in[0].dtype, r.out[0].dtype, fused_, alignment);
        });
  }
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const KernelArgs& args) override {
    if (args.in[0].dim(0) == 0) return;
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    product_.each_part([&](MatrixProduct& p, int64_t first) {
      p.run(row(args.in[0], first), args.in[1].data, fused_ ? bias : nullptr, row(args.out[0], first), false,
            args.workspace, args.stream);
    });
    if (!fused_ && (bias || activation_ != Activation::none))
      cuda::add_bias_and_activate(args.out[0], bias, activation_, args.stream);
  }

 private:
  Activation activation_;
  bool fused_;
  BatchProduct product_;
};

class InputGrad final : public Kernel {
 public:
  explicit InputGrad(const KernelRequest&) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t m = r.in[1].shape[0], k = r.in[1].shape[1];
    return product_.prepare(
        r.in[0].shape[0], {row_bytes(r.in[0]), row_bytes(r.out[0])},
        [&](MatrixProduct& p, int64_t n, uint32_t alignment) {
          return p.prepare(lt, {n, m}, {m, k}, r.in[0].dtype, r.out[0].dtype, false, alignment);
        });
  }
  int64_t workspace_bytes() const override { return product_.workspace_bytes(); }

  void run(const KernelArgs& args) override {
    product_.each_part([&](MatrixProduct& p, int64_t first) {
      p.run(row(args.in[0], first), args.in[1].data, nullptr, row(args.out[0], first), false, args.workspace,
            args.stream);
    });
  }

 private:
  BatchProduct product_;
};

// Workspace: the product's, then the bias's partial sums.
class WeightGrad final : public Kernel {
 public:
  explicit WeightGrad(const KernelRequest& r)
      : bias_bytes_(r.out.size() > 1 ? cuda::bias_grad_workspace_bytes(r.in[1]) : 0) {}

  bool prepare(CublasLt& lt, const KernelRequest& r) {
    const int64_t m = r.out[0].shape[0], k = r.out[0].shape[1];
    return product_.prepare(
        r.in[0].shape[0], {row_bytes(r.in[0]), row_bytes(r.in[1])},
        [&](MatrixProduct& p, int64_t n, uint32_t alignment) {
          return p.prepare(lt, {n, m, true}, {n, k}, r.in[0].dtype, DType::f32, false, alignment);
        });
  }
  int64_t workspace_bytes() const override { return gpu_aligned(product_.workspace_bytes()) + bias_bytes_; }

  void run(const KernelArgs& args) override {
    if (args.in[0].dim(0) == 0) {
      for (const View& v : args.out) cuda::set_to_zero(v, args.stream);
      return;
    }
    product_.each_part([&](MatrixProduct& p, int64_t first) {
      p.run(row(args.in[1], first), row(args.in[0], first), nullptr, args.out[0].data, first > 0,
            args.workspace, args.stream);
    });
    if (args.out.size() > 1)
      cuda::bias_grad(args.in[1], args.out[1].as<float>(),
                      static_cast<std::byte*>(args.workspace) + gpu_aligned(product_.workspace_bytes()),
                      args.stream);
  }

 private:
  int64_t bias_bytes_;
  BatchProduct product_;
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
             .make = for_tokens_too(op, make)});
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
