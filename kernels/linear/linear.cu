// SPDX-License-Identifier: Apache-2.0
// Linear on matrix-product tiles: x, w, y, dx, dy all row-major as they lie in memory.
#include "kernels/gpu/device_code.h"
//
#include "kernels/core/kernel.h"
#include "kernels/gpu/gemm.cuh"
#include "kernels/linear/linear.h"
#include "kernels/linear/tokens.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

// Activations and w are T; b, dw and db are float.
template <class T>
inline constexpr DType kDType = sizeof(T) == 2 ? DType::bf16 : DType::f32;

// Rows of that many elements begin at multiples of 16 bytes.
template <class T>
bool whole(int64_t columns) {
  return columns % Vector<T>::kCount == 0;
}

template <class T>
Rows<T> rows(const View& v, int64_t columns) {
  return {v.as<const T>(), columns, static_cast<int>(v.dim(0)), static_cast<int>(columns)};
}

// A matrix product of N samples, K inputs, M outputs.
class Linear : public Kernel {
 public:
  Linear(const TensorSpec& samples, const Shape& w) : n_(samples.shape[0]), k_(w[1]), m_(w[0]) {}

 protected:
  int64_t n_, k_, m_;
};

template <class T>
class Forward final : public Linear {
 public:
  Forward(const KernelRequest& r)
      : Linear(r.in[0], r.in[1].shape), activation_(r.params.as<LinearParams>().activation) {}

  void run(const KernelArgs& args) override {
    const float* bias = args.in.size() > 2 ? args.in[2].as<float>() : nullptr;
    const Output<T, PlainRows> y{args.out[0].as<T>(), {m_}, bias, activation_};
    gemm<T, true, true>(rows<T>(args.in[0], k_), rows<T>(args.in[1], k_), y, unsplit(n_, m_, k_), 1,
                        whole<T>(k_), whole<T>(m_), args.stream);
  }

 private:
  Activation activation_;
};

template <class T>
class InputGrad final : public Linear {
 public:
  explicit InputGrad(const KernelRequest& r) : Linear(r.in[0], r.in[1].shape) {}

  void run(const KernelArgs& args) override {
    const Output<T, PlainRows> dx{args.out[0].as<T>(), {k_}};
    gemm<T, true, false>(rows<T>(args.in[0], m_), rows<T>(args.in[1], k_), dx, unsplit(n_, k_, m_), 1,
                         whole<T>(m_) && whole<T>(k_), whole<T>(k_), args.stream);
  }
};

// The sum over samples in slices, where there are many; workspace: their sums, then those of the bias.
template <class T>
class WeightGrad final : public Linear {
 public:
  explicit WeightGrad(const KernelRequest& r)
      : Linear(r.in[0], r.out[0].shape), split_(m_, k_, n_), bias_sums_(n_, m_), bias_(r.out.size() > 1) {}

  int64_t workspace_bytes() const override {
    return (partial_floats() + (bias_ ? bias_sums_.workspace_floats() : 0)) * 4;
  }

  void run(const KernelArgs& args) override {
    auto* dw = args.out[0].as<float>();
    auto* workspace = static_cast<float*>(args.workspace);
    const Partials partials{split_.slices > 1 ? workspace : dw, k_, m_ * k_};
    GemmSize size = unsplit(m_, k_, n_);
    size.k_slice = split_.k_slice;
    gemm<T, false, false>(rows<T>(args.in[1], m_), rows<T>(args.in[0], k_), partials, size, split_.slices,
                          whole<T>(m_) && whole<T>(k_), k_ % Partials::kAtOnce<T> == 0, args.stream);
    if (split_.slices > 1) add_partials(workspace, split_.slices, m_ * k_, StoreFloat{dw}, args.stream);
    if (bias_)
      bias_sums_.run(args.in[1].as<const T>(), workspace + partial_floats(), args.out[1].as<float>(),
                     args.stream);
  }

 private:
  int64_t partial_floats() const { return split_.slices > 1 ? split_.slices * m_ * k_ : 0; }

  SplitK<T> split_;
  ColumnSums bias_sums_;
  bool bias_;
};

template <class T>
bool served(std::initializer_list<TensorSpec> activations) {
  for (const TensorSpec& s : activations)
    if (s.dtype != kDType<T> || s.layout != Layout::plain) return false;
  return true;
}

template <class T>
void add(Registry& r, Device device) {
  const auto tiled = [&](const char* op, bool shard, auto make) {
    r.add({.op = op,
           .name = "tiled",
           .device = device,
           .layout = LayoutClass::plain,
           .dtype = kDType<T>,
           .bit_exact = {.threads = true, .shard = shard},
           .make = for_tokens_too(op, make)});
  };
  tiled("linear", true, [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
    if (!served<T>({q.in[0], q.in[1], q.out[0]})) return nullptr;
    return std::make_unique<Forward<T>>(q);
  });
  tiled("linear_input_grad", true, [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
    if (!served<T>({q.in[0], q.in[1], q.out[0]})) return nullptr;
    return std::make_unique<InputGrad<T>>(q);
  });
  tiled("linear_weight_grad", false, [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
    if (!served<T>({q.in[0], q.in[1]}) || q.out[0].dtype != DType::f32) return nullptr;
    return std::make_unique<WeightGrad<T>>(q);
  });
}

}  // namespace

void register_linear(Registry& r, Device device) {
  add<float>(r, device);
  add<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
