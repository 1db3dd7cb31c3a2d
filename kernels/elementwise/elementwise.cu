// The interpreter on a GPU: a program is a launch argument, a thread's registers are in its local memory.
#include <type_traits>

#include "kernels/core/gpu/device_code.h"
#include "kernels/core/kernel.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/kernels.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kRegisters = ElementwiseParams::kMaxRegisters;
constexpr int kThreads = 256;

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
__device__ inline float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }

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
    case Elt::silu_grad: {
      const float s = sigmoid(a);
      return b * (s * (1 + a * (1 - s)));
    }
    case Elt::gelu_grad:
      return b * (normal_cdf(a) + a * 0.39894228f * expf(-0.5f * a * a));
    case Elt::tanh_grad:
      return b * (1 - a * a);
    case Elt::sigmoid_grad:
      return b * a * (1 - a);
  }
  return 0;
}

// kWidth elements a thread: 16 bytes where all tensors allow it, else one.
template <class T, int kWidth>
__global__ void interpret(Program p, int64_t groups) {
  const int64_t group = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (group >= groups) return;
  float registers[kRegisters][kWidth];
  for (int i = 0; i < p.inputs; ++i) {
    const T* x = static_cast<const T*>(p.in[i]) + group * kWidth;
    if constexpr (kWidth == 1) {
      registers[i][0] = float(x[0]);
    } else {
      const Vector<T> v = load16(x);
      for (int k = 0; k < kWidth; ++k) registers[i][k] = float(v[k]);
    }
  }
  for (int j = 0; j < p.count; ++j) {
    const Step s = p.steps[j];
    for (int k = 0; k < kWidth; ++k)
      registers[p.inputs + j][k] = apply(s.op, registers[s.a][k], registers[s.b][k], s.imm);
  }
  for (int o = 0; o < p.outputs; ++o) {
    T* y = static_cast<T*>(p.out[o]) + group * kWidth;
    const float* r = registers[p.stored[o]];
    if constexpr (kWidth == 1) {
      y[0] = T(r[0]);
    } else {
      Vector<T> v;
      for (int k = 0; k < kWidth; ++k) v[k] = T(r[k]);
      store16(y, v);
    }
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
    constexpr int kWidth = Vector<T>::kCount;
    if (n % kWidth == 0)
      launch(interpret<T, kWidth>, blocks(n / kWidth, kThreads), kThreads, 0, args.stream, p, n / kWidth);
    else
      launch(interpret<T, 1>, blocks(n, kThreads), kThreads, 0, args.stream, p, n);
  }

 private:
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
