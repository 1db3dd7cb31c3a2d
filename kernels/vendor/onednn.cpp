// SPDX-License-Identifier: Apache-2.0
#include "kernels/vendor/onednn.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace lockstep {

using dnnl::algorithm;

OneDnnKernel::OneDnnKernel(int threads) : threads_(threads), stream_(engine()) {}

const dnnl::engine& OneDnnKernel::engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::primitive_attr OneDnnKernel::attributes(Activation activation) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  const auto append = [&](algorithm kind, float alpha = 0) {
#if DNNL_VERSION_MAJOR < 3
    ops.append_eltwise(1, kind, alpha, 0);
#else
    ops.append_eltwise(kind, alpha, 0);
#endif
  };
  switch (activation) {
    case Activation::none:
      break;
    case Activation::relu:
      append(algorithm::eltwise_relu);
      break;
    case Activation::silu:
      append(algorithm::eltwise_swish, 1);
      break;
    case Activation::gelu:
      append(algorithm::eltwise_gelu_erf);
      break;
    case Activation::quick_gelu:
      append(algorithm::eltwise_swish, kQuickGelu);
      break;
    case Activation::tanh:
      append(algorithm::eltwise_tanh);
      break;
    case Activation::sigmoid:
      append(algorithm::eltwise_logistic);
      break;
  }
  attr.set_post_ops(ops);
  return attr;
}

dnnl::memory OneDnnKernel::bind(const dnnl::memory::desc& desc, Source source, size_t at) {
  dnnl::memory memory(desc, engine(), DNNL_MEMORY_NONE);
  bindings_.push_back({memory, source, at});
  return memory;
}

dnnl::memory OneDnnKernel::workspace(const dnnl::memory::desc& desc) {
  const auto at = static_cast<size_t>(workspace_bytes_);
  workspace_bytes_ += static_cast<int64_t>((desc.get_size() + 63) / 64 * 64);
  return bind(desc, Source::workspace, at);
}

void OneDnnKernel::push(std::vector<Step>& steps, const dnnl::primitive& primitive,
                        const std::unordered_map<int, dnnl::memory>& args) {
  Step step{primitive, {}};
  for (const auto& [index, memory] : args) step.args.push_back({index, memory.get()});
  steps.push_back(std::move(step));
}

void OneDnnKernel::add_reorder(std::vector<Step>& steps, const dnnl::memory& from, const dnnl::memory& to) {
  const dnnl::reorder::primitive_desc desc(engine(), from.get_desc(), engine(), to.get_desc(), attributes());
  push(steps, dnnl::reorder(desc),
       {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, workspace(desc.scratchpad_desc())}});
}

dnnl::memory OneDnnKernel::input(size_t i, const dnnl::memory::desc& stored,
                                 const dnnl::memory::desc& wanted) {
  const dnnl::memory mine = bind(stored, Source::input, i);
  if (stored == wanted) return mine;
  const dnnl::memory theirs = workspace(wanted);
  add_reorder(steps_, mine, theirs);
  return theirs;
}

dnnl::memory OneDnnKernel::output(size_t i, const dnnl::memory::desc& stored,
                                  const dnnl::memory::desc& wanted) {
  const dnnl::memory mine = bind(stored, Source::output, i);
  if (stored == wanted) return mine;
  const dnnl::memory theirs = workspace(wanted);
  add_reorder(last_steps_, theirs, mine);
  return theirs;
}

void OneDnnKernel::run(const KernelArgs& args) {
  const OpenMpThreads threads(threads_);
  const auto check = [](dnnl_status_t status) {
    if (status == dnnl_success) return;
    // Shapes were accepted when the primitive was made: nothing that a caller could handle.
    std::fprintf(stderr, "oneDNN failed while running a primitive: status %d\n", static_cast<int>(status));
    std::abort();
  };
  for (auto& b : bindings_) {
    void* data = b.source == Source::input    ? args.in[b.at].data
                 : b.source == Source::output ? args.out[b.at].data
                                              : static_cast<std::byte*>(args.workspace) + b.at;
#if DNNL_VERSION_MAJOR < 3
    check(dnnl_memory_set_data_handle_v2(b.memory.get(), data, stream_.get()));
#else
    check(dnnl_memory_set_data_handle(b.memory.get(), data));
#endif
  }
  for (const auto* steps : {&steps_, &last_steps_})
    for (const auto& s : *steps)
      check(dnnl_primitive_execute(s.primitive.get(), stream_.get(), static_cast<int>(s.args.size()),
                                   s.args.data()));
  check(dnnl_stream_wait(stream_.get()));
}

namespace {

class NoSamples final : public Kernel {
 public:
  explicit NoSamples(bool sums_over_batch) : sums_over_batch_(sums_over_batch) {}
  void run(const KernelArgs& args) override {
    if (!sums_over_batch_) return;
    for (const View& v : args.out) std::fill_n(v.as<float>(), v.shape().elements(), 0.0f);
  }

 private:
  bool sums_over_batch_;
};

}  // namespace

std::unique_ptr<Kernel> make_onednn(const KernelRequest& request, bool sums_over_batch,
                                    const std::function<void(OneDnnKernel&)>& f) {
  const OpenMpThreads threads(request.threads);
  try {
    auto kernel = std::make_unique<OneDnnKernel>(request.threads);
    f(*kernel);
    if (request.in[0].shape[0] == 0) return std::make_unique<NoSamples>(sums_over_batch);
    return kernel;
  } catch (const dnnl::error&) {
    return nullptr;
  }
}

}  // namespace lockstep
