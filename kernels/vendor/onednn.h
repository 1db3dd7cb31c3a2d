// SPDX-License-Identifier: Apache-2.0
// What the rooms' oneDNN kernels share: a list of primitives over memory objects, all made ahead, that
// run() only points at this step's addresses.
#pragma once

#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "kernels/core/activation.h"
#include "kernels/core/kernel.h"
#include "kernels/core/thread_team.h"

namespace lockstep {

// oneDNN takes its thread count from OpenMP, when a primitive is made and again when it runs. Its threads are OpenMP's: ours leave
// the cores to them.
class OpenMpThreads {
 public:
  explicit OpenMpThreads(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
    if (threads > 1) let_threads_sleep();
  }
  ~OpenMpThreads() { omp_set_num_threads(before_); }
  OpenMpThreads(const OpenMpThreads&) = delete;
  OpenMpThreads& operator=(const OpenMpThreads&) = delete;

 private:
  int before_;
};

class OneDnnKernel final : public Kernel {
 public:
  explicit OneDnnKernel(int threads);

  // Scratchpads come from the workspace; a primitive whose attributes lack this would allocate.
  static dnnl::primitive_attr attributes(Activation activation = Activation::none);
  static const dnnl::engine& engine();
  static dnnl::memory::desc describe(const dnnl::memory::dims& dims, dnnl::memory::format_tag tag,
                                     DType dtype = DType::f32) {
    using type = dnnl::memory::data_type;
    return {dims, dtype == DType::bf16 ? type::bf16 : type::f32, tag};
  }
  static dnnl::memory::desc any(const dnnl::memory::dims& dims, DType dtype = DType::f32) {
    return describe(dims, dnnl::memory::format_tag::any, dtype);
  }

  // The kernel's i-th input or output, stored as `stored`, for a primitive that wants it as `wanted`. Where
  // they differ a reorder before (input) or after (output) the primitives that add() gets converts it.
  dnnl::memory input(size_t i, const dnnl::memory::desc& stored, const dnnl::memory::desc& wanted);
  dnnl::memory output(size_t i, const dnnl::memory::desc& stored, const dnnl::memory::desc& wanted);
  template <class PrimitiveDesc>
  void add(const PrimitiveDesc& desc, const dnnl::primitive& primitive,
           std::unordered_map<int, dnnl::memory> args) {
    args[DNNL_ARG_SCRATCHPAD] = workspace(desc.scratchpad_desc());
    push(steps_, primitive, args);
  }

  int64_t workspace_bytes() const override { return workspace_bytes_; }
  void run(const KernelArgs& args) override;

 private:
  struct Step {
    dnnl::primitive primitive;
    std::vector<dnnl_exec_arg_t> args;
  };
  enum class Source { input, output, workspace };
  struct Binding {
    dnnl::memory memory;
    Source source;
    size_t at;  // index, or offset into the workspace
  };

  dnnl::memory bind(const dnnl::memory::desc& desc, Source source, size_t at);
  dnnl::memory workspace(const dnnl::memory::desc& desc);
  static void push(std::vector<Step>& steps, const dnnl::primitive& primitive,
                   const std::unordered_map<int, dnnl::memory>& args);
  void add_reorder(std::vector<Step>& steps, const dnnl::memory& from, const dnnl::memory& to);

  int threads_;
  dnnl::stream stream_;
  std::vector<Step> steps_, last_steps_;  // last: reorders of outputs
  std::vector<Binding> bindings_;
  int64_t workspace_bytes_ = 0;
};

// A primitive of these words (kind, algorithm, what is read and written, strides, ...). oneDNN 2 takes them in a
// description of their own; oneDNN 3 takes them at once, between engine and attributes.
template <class Primitive, class... Words>
typename Primitive::primitive_desc forward_desc(const dnnl::primitive_attr& attributes,
                                                const Words&... words) {
#if DNNL_VERSION_MAJOR < 3
  return {typename Primitive::desc(words...), attributes, OneDnnKernel::engine()};
#else
  return {OneDnnKernel::engine(), words..., attributes};
#endif
}

// The same for a gradient, which is told about its forward primitive.
template <class Primitive, class Forward, class... Words>
typename Primitive::primitive_desc backward_desc(const Forward& forward, const Words&... words) {
#if DNNL_VERSION_MAJOR < 3
  return {typename Primitive::desc(words...), OneDnnKernel::attributes(), OneDnnKernel::engine(), forward};
#else
  return {OneDnnKernel::engine(), words..., forward, OneDnnKernel::attributes()};
#endif
}

// Makes a kernel with f(kernel) under the thread count; nullptr where oneDNN has no such primitive. For
// batch 0, which oneDNN is never asked about, f sees one sample, and the kernel that comes back writes
// zeros into outputs without a batch dimension.
std::unique_ptr<Kernel> make_onednn(const KernelRequest& request, bool sums_over_batch,
                                    const std::function<void(OneDnnKernel&)>& f);

}  // namespace lockstep
