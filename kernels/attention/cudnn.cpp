// SPDX-License-Identifier: Apache-2.0
// cuDNN's scaled dot product attention, of bf16 tokens and of images in nhwc: it wants a head's channels side
// by side. Without mask. It is in cuDNN's graph interface alone, which cudnn_frontend builds graphs for: headers, which look up what
// they call in libcudnn and libcudart themselves.
//
// A kernel must not decline for its batch: it is made where cuDNN has a plan for one sample, which works the
// batch off sample by sample where there is none for it.
//
// Its statistics are our lse: the natural logarithm, of scores that are scaled. The gradient by its
// deterministic algorithm.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_map>

#include "kernels/attention/attention.h"
#include "kernels/core/kernel.h"
#include "kernels/vendor/cudnn.h"
#include "kernels/vendor/shared_library.h"

void* cudnn_frontend::cudnn_dlhandle = nullptr;

namespace lockstep {
namespace {

namespace fe = cudnn_frontend;
using fe::graph::Graph;
using fe::graph::Tensor_attributes;

// Tokens of its largest tile. Where they don't fill tiles, its gradient of rows with lse below -88 is NaN:
// exp(0 - lse) of keys or queries that aren't there (9.12 to 9.26 at least; NVIDIA/cudnn-frontend's issues
// 160 and 1072); and before 9.15.1 a recorded step reads outside its tensors.
constexpr int64_t kTile = 128;
// The deterministic algorithm may keep a bf16 of each pair of tokens. Bytes a sample, as kernels don't
// decline for the batch.
constexpr int64_t kMostPairs = 16 << 20;

// Each tensor's uid is its place among inputs and outputs, from 1.
void describe(Tensor_attributes& t, const TensorSpec& s, int64_t heads, int64_t uid) {
  const int64_t n = std::max<int64_t>(s.shape[0], 1);  // without samples it is made, not run
  t.set_uid(uid);
  if (s.dtype == DType::f32) {  // lse: [N, heads, tokens]
    const int64_t tokens = s.shape[2];
    t.set_data_type(fe::DataType_t::FLOAT)
        .set_dim({n, heads, tokens, 1})
        .set_stride({heads * tokens, tokens, 1, 1});
    return;
  }
  const auto [c, tokens, channels_last] = TokenSizes(s);
  const int64_t width = c / heads;
  t.set_data_type(fe::DataType_t::BFLOAT16)
      .set_dim({n, heads, tokens, width})
      .set_stride({c * tokens, width, c, 1});
}

// Null: not its shapes, this GPU or this version.
std::unique_ptr<Graph> build(cudnnHandle_t handle, const KernelRequest& r) {
  const auto& p = r.params.as<AttentionParams>();
  auto graph = std::make_unique<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  int64_t uid = 0;
  std::vector<std::shared_ptr<Tensor_attributes>> in, out;
  for (const TensorSpec& s : r.in) {
    Tensor_attributes t;
    describe(t, s, p.heads, ++uid);
    in.push_back(graph->tensor(t));
  }
  if (in.size() == 3) {
    auto options = fe::graph::SDPA_attributes();
    options.set_name("attention").set_attn_scale(p.scale).set_generate_stats(true);
    const auto made = graph->sdpa(in[0], in[1], in[2], options);
    out.assign(made.begin(), made.end());
  } else {
    auto options = fe::graph::SDPA_backward_attributes();
    options.set_name("attention_grad").set_attn_scale(p.scale).set_deterministic_algorithm(true);
    const auto made = graph->sdpa_backward(in[0], in[1], in[2], in[3], in[5], in[4], options);
    out.assign(made.begin(), made.end());
  }
  for (size_t i = 0; i < out.size(); ++i) {
    describe(*out[i], r.out[i], p.heads, ++uid);
    out[i]->set_output(true);
  }
  auto status = graph->build(handle, {fe::HeurMode_t::A});
  if (status.is_good()) return graph;
  notice_once(fmt::format("cuDNN declines some attention: {}", status.get_message()));
  return nullptr;
}

// One for each shape: cuDNN compiles some, which takes a while, and plans make a kernel several times. They
// stay, as the handle does: at the process's end the driver may be gone.
const Graph* graph_for(Cudnn& cudnn, const KernelRequest& r) {
  static auto& graphs = *new std::map<std::string, std::unique_ptr<Graph>>;
  std::string key = r.params.text();
  for (const TensorSpec& s : r.in) key += " " + s.text();
  const auto [at, added] = graphs.try_emplace(key);
  if (!added) return at->second.get();
  cudnnHandle_t const handle = cudnn.on(nullptr);
  // The frontend opens libcudart by its name, which finds one that is loaded.
  static const SharedLibrary cudart({LOCKSTEP_CUDART_LIBRARY});
  fe::cudnn_dlhandle = cudnn.dlhandle;
  try {
    at->second = build(handle, r);
  } catch (const std::runtime_error& e) {  // a library, or an entry point, that isn't to be had
    notice_once(fmt::format("cuDNN declines some attention: {}", e.what()));
  }
  return at->second.get();
}

// The same of another number of samples.
const Graph* graph_for(Cudnn& cudnn, const KernelRequest& r, int64_t samples) {
  std::vector<TensorSpec> in, out;
  for (const TensorSpec& s : r.in) in.push_back(with_samples(s, samples));
  for (const TensorSpec& s : r.out) out.push_back(with_samples(s, samples));
  return graph_for(cudnn, {r.params, in, out});
}

class CudnnAttention final : public Kernel {
 public:
  // `part`: samples that the graph is of.
  CudnnAttention(Cudnn& cudnn, const Graph& graph, int64_t part, const KernelRequest& r)
      : cudnn_(cudnn),
        graph_(graph),
        samples_(r.in[0].shape[0]),
        part_(part),
        bytes_(graph.get_workspace_size()) {
    for (size_t i = 1; i <= r.in.size() + r.out.size(); ++i) addresses_[static_cast<int64_t>(i)] = nullptr;
  }
  int64_t workspace_bytes() const override { return bytes_ ? gpu_aligned(bytes_) + kGpuAlignment : 0; }

  void run(const KernelArgs& args) override {
    for (int64_t first = 0; first < samples_; first += part_) {
      int64_t uid = 0;
      for (auto views : {args.in, args.out})
        for (const View& v : views) addresses_[++uid] = cudnn_sample(v, first);
      auto status =
          graph_.execute(cudnn_.on(args.stream), addresses_, bytes_ ? gpu_aligned(args.workspace) : nullptr);
      if (status.is_bad())
        throw Error(Exit::internal, "E_CUDNN", fmt::format("cuDNN's attention: {}", status.get_message()))
            .hint("CUDNN_FRONTEND_LOG_INFO=10 CUDNN_FRONTEND_LOG_FILE=stderr says more");
    }
  }

 private:
  Cudnn& cudnn_;
  const Graph& graph_;
  int64_t samples_, part_, bytes_;
  std::unordered_map<int64_t, void*> addresses_;
};

// lse: of the statistics, which are f32.
bool served(const KernelRequest& r, const TensorSpec& lse) {
  if (r.params.as<AttentionParams>().causal) return false;
  for (auto specs : {r.in, r.out})
    for (const TensorSpec& s : specs) {
      const bool is_lse = &s == &lse;
      if (s.dtype != (is_lse ? DType::f32 : DType::bf16) ||
          (is_lse ? s.layout != Layout::plain : !TokenSizes(s).channels_last))
        return false;
    }
  return true;
}

bool served_backward(const KernelRequest& r) {
  const int64_t queries = TokenSizes(r.in[0]).tokens, keys = TokenSizes(r.in[1]).tokens;
  return queries % kTile == 0 && keys % kTile == 0 &&
         r.params.as<AttentionParams>().heads * queries * keys * size_of(DType::bf16) <= kMostPairs;
}

std::unique_ptr<Kernel> make(const KernelRequest& r) {
  const bool backward = r.in.size() > 3;
  if (!served(r, backward ? r.in[4] : r.out[1]) || (backward && !served_backward(r))) return nullptr;
  Cudnn* const cudnn = Cudnn::get();
  const Graph* const one = cudnn ? graph_for(*cudnn, r, 1) : nullptr;
  if (!one) return nullptr;
  const int64_t samples = std::max<int64_t>(r.in[0].shape[0], 1);
  const Graph* const all = graph_for(*cudnn, r, samples);
  return std::make_unique<CudnnAttention>(*cudnn, all ? *all : *one, all ? samples : 1, r);
}

}  // namespace

void register_attention_cudnn(Registry& r) {
  const auto add = [&](const char* op, const char* name, LayoutClass layout) {
    r.add({.op = op,
           .name = name,
           .device = Device::cuda,
           .layout = layout,
           .dtype = DType::bf16,
           .bit_exact = {.threads = true},
           .make = make});
  };
  for (const char* op : {"attention", "attention_grad"}) {
    add(op, "cudnn", LayoutClass::plain);
    add(op, "cudnn_nhwc", LayoutClass::nhwc);
  }
}

}  // namespace lockstep
