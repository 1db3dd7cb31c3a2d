// SPDX-License-Identifier: Apache-2.0
// One harness for all ops: a room's test file lists cases, the harness does the rest.
//
//   static const bool cases = add_kernel_cases([] { return std::vector<KernelCase>{...}; });
//   static const bool gradients = add_gradient_cases([] { return std::vector<GradientCase>{...}; });
//
// For every case, every kernel of the op (the reference in other layouts too) runs in every layout it takes,
// with 1, 2 and 3 threads and on every instruction set this processor has (combinations.h), and is compared with
// the reference in the plain layout. Around every output and workspace lie sentinels; outputs start as NaN, so an element
// not written is seen; padding lanes of inputs hold finite garbage in activations and zeros where
// `gradient_in` says so, and those of outputs are checked to be finite, or zero where `gradient_out` says so.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/kernel.h"

namespace lockstep::testing {

// Owning tensor, 64-byte aligned, with sentinels on both sides.
class Buffer {
 public:
  explicit Buffer(TensorSpec spec, bool fill_nan = true);
  const TensorSpec& spec() const { return spec_; }
  View view() const { return {spec_, data()}; }
  void* data() const;
  template <class T = float>
  T* as() const {
    return static_cast<T*>(data());
  }
  bool sentinels_intact() const;

 private:
  TensorSpec spec_;
  std::shared_ptr<std::vector<std::byte>> memory_;
};

struct KernelCase {
  std::string op;
  std::string label;
  Params params;
  std::vector<TensorSpec> in, out;  // all in the plain layout
  std::vector<int> batch_in,
      batch_out;  // indices of tensors whose dimension 0 is the batch: they follow the layout
  std::vector<int> gradient_in, gradient_out;  // of those: gradients of activations (padding lanes are zero)
  double tolerance = 1e-5;  // of the largest |expected| of the tensor, plus as much absolute; say why
  std::vector<std::pair<int, int>>
      in_place;  // (input, output) pairs that may share a buffer: run that way too
  // Fills the plain inputs; default: f32 uniform in [-1, 1), u8 0..255, i32 0.
  std::function<void(std::vector<Buffer>& in, std::mt19937& random)> fill;

  // Of a bf16 kernel, these tensors are bf16, all others as above; default: the f32 ones among batch_in and
  // batch_out. Name weights where the kernel has them in bf16.
  std::optional<std::vector<int>> bf16_in, bf16_out;
  double bf16_tolerance =
      0;  // beside `tolerance`, and 2^-8 where the output is bf16: for roundings inside the kernel
  bool watched = true;  // false: too large for watched GPU kernels, which are a hundred times slower
};
// A case for kernels of one dtype. For bf16 inputs are rounded to it first: a bf16 output is then off by its
// own rounding, 2^-9 of its value, and by the f32 sums' other order.
struct TypedCase {
  KernelCase c;
  DType dtype;
  std::vector<int> bf16_in, bf16_out;    // tensors that are bf16
  std::vector<Buffer> inputs, expected;  // plain, with the case's own dtypes; expected: the reference's
  // What output o may differ by.
  double tolerance(size_t o) const;
};
TypedCase typed_case(const KernelCase& c, DType dtype);
Buffer converted(const Buffer& b, DType to);  // between f32 and bf16
bool contains(const std::vector<int>& list, size_t i);
bool add_kernel_cases(std::function<std::vector<KernelCase>()> make);
std::vector<KernelCase> all_kernel_cases();
std::vector<Buffer> make_inputs(const KernelCase&);  // plain, filled
bool takes(LayoutClass, Layout);
// Whether the case's tensors that follow the layout can have this one.
bool has_layout(const KernelCase&, Layout);
Layout layout_for(const TensorSpec&, Layout wanted);
// `tolerance` of the largest |expected|, and as much absolute where that is below 1; integers exactly.
void compare(const Buffer& got, const Buffer& expected, double tolerance, const std::string& where);

// Central differences of a scalar function of the forward op's outputs against the gradient op, along random
// directions; both reference kernels, computed on float data.
struct GradientCase {
  std::string label;
  std::vector<std::string> ops;  // the gradient ops that this case proves
  std::vector<Buffer> inputs;    // differentiated with respect to these
  // Sum over the forward outputs times fixed random weights (the caller's), in double.
  std::function<double(const std::vector<Buffer>& inputs)> loss;
  // d loss / d inputs[i], one per input, in the same layout.
  std::function<std::vector<Buffer>(const std::vector<Buffer>& inputs)> gradient;
  double step = 1e-2;
  double tolerance = 2e-3;  // relative; float outputs limit central differences to about 1e-7/step + step^2
};
bool add_gradient_cases(std::function<std::vector<GradientCase>()> make);
// Ops without a gradient of their own and why ("optimizer_step": "nothing flows back through it").
bool declare_no_gradient(std::string op, std::string why);

// Helpers for rooms.
void fill_uniform(const Buffer& b, std::mt19937& random, float low = -1, float high = 1);
// Runs one kernel on buffers; the outputs' specs say what to allocate.
std::vector<Buffer> run_kernel(const std::string& op, const std::string& name, const Params& params,
                               const std::vector<Buffer>& in, const std::vector<TensorSpec>& out,
                               int threads = 1, Device device = Device::cpu);
std::vector<Buffer> run_reference(const std::string& op, const Params& params, const std::vector<Buffer>& in,
                                  const std::vector<TensorSpec>& out);
// Sum of w[i] * b[i] over logical elements, in double; w drawn from a fixed seed.
double weighted_sum(const std::vector<Buffer>& outputs, unsigned seed);
// The weights of weighted_sum as buffers of the same specs: the dy of that loss.
std::vector<Buffer> weighted_sum_gradient(const std::vector<TensorSpec>& outputs, unsigned seed);
Buffer to_layout(const Buffer& b, Layout layout, float padding = 0);

inline TensorSpec f32(Shape shape, Layout layout = Layout::plain) { return {DType::f32, shape, layout}; }

}  // namespace lockstep::testing
