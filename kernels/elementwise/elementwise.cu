// SPDX-License-Identifier: Apache-2.0
// The interpreter on a GPU: a program is a launch argument.
#include <type_traits>

#include "kernels/core/activation.h"
#include "kernels/core/kernel.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/kernels.h"
#include "kernels/gpu/activate.cuh"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kRegisters = ElementwiseParams::kMaxRegisters;
constexpr int kThreads = 128;  // with which the longest program of the widest type takes 96 KB

struct Step {
  Elt op;
  uint8_t a, b;
  float imm;
};
struct Program {
  const void* in[kRegisters];
  void* out[kRegisters];
  Step steps[kRegisters];
  uint8_t stored[kRegisters];  // register of each output
  int inputs, count, outputs;
};

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

__device__ inline float apply(Elt op, float a, float b, float imm) {
  switch (op) {
    case Elt::copy:
      return a;
    case Elt::relu:
      return a < 0 ? 0 : a;
    case Elt::silu:
      return a * sigmoid(a);
    case Elt::gelu:
      return a * normal_cdf(a);
    case Elt::quick_gelu:
      return a * sigmoid(kQuickGelu * a);
    case Elt::tanh:
      return tanhf(a);
    case Elt::sigmoid:
      return sigmoid(a);
    case Elt::add:
      return a + b;
    case Elt::sub:
      return a - b;
    case Elt::mul:
      return a * b;
    case Elt::scale:
      return a * imm;
    case Elt::add_imm:
      return a + imm;
    case Elt::relu_grad:
      return a > 0 ? b : 0;
    case Elt::silu_grad:
      return b * silu_slope(a);
    case Elt::gelu_grad:
      return b * gelu_slope(a);
    case Elt::quick_gelu_grad:
      return b * silu_slope(kQuickGelu * a);
    case Elt::tanh_grad:
      return b * (1 - a * a);
    case Elt::sigmoid_grad:
      return b * a * (1 - a);
  }
  return 0;
}

template <int kWidth>
__device__ inline void apply_all(const Step& s, const float (&a)[kWidth], const float (&b)[kWidth],
                                 float (&to)[kWidth]) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) to[k] = apply(s.op, a[k], b[k], s.imm);
}

// Programs of one step. kWidth elements a thread: 16 bytes where all tensors allow it, else one.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) one_step(Program p, int64_t groups) {
  const int64_t group = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (group >= groups) return;
  const Step s = p.steps[0];
  float a[kWidth], b[kWidth], result[kWidth];
  load_floats(a, static_cast<const T*>(p.in[s.a]) + group * kWidth);
  if (s.b == s.a)
    for (int k = 0; k < kWidth; ++k) b[k] = a[k];
  else
    load_floats(b, static_cast<const T*>(p.in[s.b]) + group * kWidth);
  apply_all(s, a, b, result);
  store_floats(static_cast<T*>(p.out[0]) + group * kWidth, result);
}

// A thread's registers: in shared memory, since a program names them at run time; interleaved, so that a
// warp's accesses lie side by side.
template <int kWidth>
class Registers {
 public:
  static constexpr size_t kBytes = sizeof(float) * kWidth * kThreads;  // of one register of all threads

  __device__ void put(int i, const float (&f)[kWidth]) const {
    if constexpr (kWidth == 1) {
      at(i)[threadIdx.x] = f[0];
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; k += 4) {
        Vector<float> v;
#pragma unroll
        for (int e = 0; e < 4; ++e) v[e] = f[k + e];
        store16(at(i) + k * kThreads + threadIdx.x * 4, v);
      }
    }
  }
  __device__ void get(int i, float (&f)[kWidth]) const {
    if constexpr (kWidth == 1) {
      f[0] = at(i)[threadIdx.x];
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; k += 4) {
        const Vector<float> v = load16(at(i) + k * kThreads + threadIdx.x * 4);
#pragma unroll
        for (int e = 0; e < 4; ++e) f[k + e] = v[e];
      }
    }
  }

 private:
  __device__ static float* at(int i) { return dynamic_shared<float>() + i * (kWidth * kThreads); }
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) interpret(Program p, int64_t groups) {
  const int64_t group = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (group >= groups) return;
  const Registers<kWidth> registers;
  float a[kWidth], b[kWidth], result[kWidth];
  for (int i = 0; i < p.inputs; ++i) {
    load_floats(a, static_cast<const T*>(p.in[i]) + group * kWidth);
    registers.put(i, a);
  }
  for (int j = 0; j < p.count; ++j) {
    const Step s = p.steps[j];
    registers.get(s.a, a);
    registers.get(s.b, b);
    apply_all(s, a, b, result);
    registers.put(p.inputs + j, result);
  }
  for (int o = 0; o < p.outputs; ++o) {
    registers.get(p.stored[o], a);
    store_floats(static_cast<T*>(p.out[o]) + group * kWidth, a);
  }
}

template <class T>
class Interpreter final : public Kernel {
 public:
  explicit Interpreter(const KernelRequest& r) {
    const auto& params = r.params.as<ElementwiseParams>();
    program_.inputs = params.inputs;
    for (const EltInstruction& c : params.code)
      program_.steps[program_.count++] = {c.op, static_cast<uint8_t>(c.a), static_cast<uint8_t>(c.b), c.imm};
    for (int o : params.outputs) program_.stored[program_.outputs++] = static_cast<uint8_t>(o);
  }

  void run(const KernelArgs& args) override {
    Program p = program_;
    for (size_t i = 0; i < args.in.size(); ++i) p.in[i] = args.in[i].data;
    for (size_t o = 0; o < args.out.size(); ++o) p.out[o] = args.out[o].data;
    const int64_t n = args.in[0].spec.stored_elements();
    if (n % kVector<T> == 0)
      start<kVector<T>>(p, n / kVector<T>, args.stream);
    else
      start<1>(p, n, args.stream);
  }

 private:
  template <int kWidth>
  static void start(const Program& p, int64_t groups, void* stream) {
    const unsigned grid = blocks(groups, kThreads);
    if (p.count == 1 && p.outputs == 1 && p.stored[0] == p.inputs)
      launch(one_step<T, kWidth>, grid, kThreads, 0, stream, p, groups);
    else
      launch(interpret<T, kWidth>, grid, kThreads,
             static_cast<size_t>(p.inputs + p.count) * Registers<kWidth>::kBytes, stream, p, groups);
  }
  Program program_{};
};

template <class T>
void add(Registry& r, Device device, DType dtype) {
  r.add({.op = "elementwise",
         .name = "interpreter",
         .device = device,
         .layout = LayoutClass::any,
         .dtype = dtype,
         .bit_exact = {.threads = true, .shard = true},
         .make = [dtype](const KernelRequest& request) -> std::unique_ptr<Kernel> {
           elementwise::check(request);
           if (request.in[0].dtype != dtype || request.in[0].layout == Layout::lanes) return nullptr;
           return std::make_unique<Interpreter<T>>(request);
         }});
}

}  // namespace

void register_elementwise(Registry& r, Device device) {
  add<float>(r, device, DType::f32);
  add<bf16>(r, device, DType::bf16);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
