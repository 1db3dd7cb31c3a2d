// SPDX-License-Identifier: Apache-2.0
// The kernel registry: op x device x layout x dtype x name.
//
// A kernel is made once per node of a plan, for fixed shapes, and then run every step:
//   make()  looks at shapes, dtypes, layouts, parameters; declines with nullptr, or prepares
//           (a oneDNN primitive, a blocking). Whether it declines must not depend on the batch
//           size, so that one choice serves every rank and a shorter last batch. All the memory
//           a kernel ever allocates it allocates here.
//   run()   works on addresses. Allocates nothing; throws only what a GPU or its libraries refuse.
//           Batch size 0 is legal: reductions over it write zeros, everything else nothing.
// Outputs are overwritten, never accumulated into, unless the op's header says otherwise, and every
// element of an output is written. Inputs and outputs don't overlap unless the op's header names a
// pair that may be the same buffer.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/params.h"
#include "kernels/core/tensor.h"

namespace lockstep {

enum class Device : uint8_t { cpu, cuda, simt };
const char* name(Device);

struct KernelArgs {
  std::span<const View> in;
  std::span<const View> out;
  void* workspace = nullptr;  // workspace_bytes() of it, 64-byte aligned; contents undefined
  void* stream = nullptr;     // on CUDA the cudaStream_t that run() works in; else null
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual int64_t workspace_bytes() const { return 0; }
  virtual void run(const KernelArgs& args) = 0;
};

struct KernelRequest {
  const Params& params;
  std::span<const TensorSpec> in;
  std::span<const TensorSpec> out;
  int threads = 1;  // how many threads run() may use (parallel.h)
};

// What a kernel's bits do not depend on, beside the run itself (every kernel repeats exactly for
// the same thread count and shapes).
struct BitExact {
  bool threads = false;  // the thread count
  bool shard = false;    // how the batch is cut over ranks: per-sample results only, or sums kept in
                         // partials of a fixed number of samples
};

enum class LayoutClass : uint8_t {
  any,    // every layout of its tensors that have a batch dimension
  plain,  // all of them plain
  nhwc,
  lanes,
};
const char* name(LayoutClass);

struct KernelInfo {
  std::string op;    // "conv2d", "conv2d_input_grad"
  std::string name;  // "reference", "lanes", "onednn"
  Device device = Device::cpu;
  LayoutClass layout = LayoutClass::plain;
  DType dtype = DType::f32;  // of its activations
  BitExact bit_exact;
  std::function<std::unique_ptr<Kernel>(const KernelRequest&)> make;  // nullptr: declines
  // Where bits must depend on shapes alone, the first that accepts is taken instead of the fastest. True: a later one
  // is the faster for these shapes. Never of the batch size or the threads.
  std::function<bool(const KernelRequest&)> yields = nullptr;

  bool is_reference() const { return name == "reference"; }
};

// The dtype of the kernels that take these tensors: bf16 where one of them is bf16.
DType kernel_dtype(const KernelRequest& request);

class Registry {
 public:
  void add(KernelInfo info);  // asserts that (op, name, device, dtype) is new
  std::span<const KernelInfo> all() const { return {infos_.data(), infos_.size()}; }
  const KernelInfo* find(std::string_view op, std::string_view name, Device device,
                         DType dtype = DType::f32) const;
  // All that accept the layouts of these tensors, and bf16 where one of them is bf16, fast ones first,
  // reference last; make() may still decline.
  std::vector<const KernelInfo*> candidates(std::string_view op, Device device,
                                            const KernelRequest& request) const;
  // Every kernel of this build. Made once, at first use.
  static const Registry& builtin();

 private:
  std::vector<KernelInfo> infos_;
};

// A kernel without preparation or workspace: f(params, args) or f(params, args, threads).
template <class P, class F>
std::function<std::unique_ptr<Kernel>(const KernelRequest&)> stateless(F f) {
  class K final : public Kernel {
   public:
    K(Params p, int threads, F f) : params_(std::move(p)), threads_(threads), f_(f) {}
    void run(const KernelArgs& args) override {
      if constexpr (std::is_invocable_v<F, const P&, const KernelArgs&, int>)
        f_(params_.as<P>(), args, threads_);
      else
        f_(params_.as<P>(), args);
    }

   private:
    Params params_;
    int threads_;
    F f_;
  };
  return [f](const KernelRequest& r) { return std::make_unique<K>(r.params, r.threads, f); };
}

// For ops that need no parameters.
struct NoParams {
  std::string text() const { return {}; }
};

}  // namespace lockstep
