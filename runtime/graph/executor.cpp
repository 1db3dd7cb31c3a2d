#include "runtime/graph/executor.h"

#include <cmath>
#include <map>

namespace lockstep {

struct Executor::Bound {
  struct Step {
    const Node* node = nullptr;
    std::unique_ptr<Kernel> kernel;
    std::vector<View> in, out;
    void* workspace = nullptr;
    bool waits = false;  // reads gradients that other ranks have added to
    std::span<float> bucket;
  };
  std::shared_ptr<const Plan> plan;
  std::vector<Step> steps;
  StepState state;
  std::vector<std::pair<ValueId, AlignedBuffer>> outputs;
  std::map<std::string, View> output_views;
  struct Patch {
    View* view;
    bool labels;
  };
  std::vector<Patch> patches;  // views of what the host hands over anew each run
};

Executor::Executor(ModelState& model, Communicator& gradients, Communicator& statistics, const KernelChoice& how)
    : model_(model), gradients_(gradients), statistics_(statistics), how_(how) {
  tickets_.reserve(1024);
}
Executor::~Executor() = default;

Executor::Bound& Executor::bind(std::shared_ptr<const Plan> plan) {
  bound_.push_back(std::make_unique<Bound>());
  Bound& b = *bound_.back();
  b.plan = std::move(plan);
  const Graph& g = b.plan->graph;
  for (ValueId v : g.values_in(Storage::output)) b.outputs.emplace_back(v, AlignedBuffer(g.value(v).spec.bytes()));
  b.steps.resize(g.nodes().size());
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    auto& step = b.steps[i];
    const Node& n = g.nodes()[i];
    step.node = &n;
    for (ValueId v : n.in) {
      step.in.push_back({g.value(v).spec, nullptr});
      step.waits |= g.value(v).storage == Storage::gradient && g.value(v).name == kWholeArray;
    }
    for (ValueId v : n.out) step.out.push_back({g.value(v).spec, nullptr});
    if (n.kind != NodeKind::compute) continue;
    std::vector<TensorSpec> in, out;
    for (const auto& view : step.in) in.push_back(view.spec);
    for (const auto& view : step.out) out.push_back(view.spec);
    const KernelInfo* info = Registry::builtin().find(n.op, n.kernel, how_.device);
    step.kernel = info ? info->make({n.params, in, out, how_.threads}) : nullptr;
    LOCKSTEP_ASSERT(step.kernel != nullptr, "kernel {} of {} vanished", n.kernel, n.op);
  }
  if (b.plan->arena_bytes > arena_.bytes()) {
    arena_ = AlignedBuffer();
    arena_ = AlignedBuffer(b.plan->arena_bytes);
    for (auto& other : bound_) resolve(*other);
  } else {
    resolve(b);
  }
  return b;
}

void Executor::resolve(Bound& b) {
  const Plan& plan = *b.plan;
  const Graph& g = plan.graph;
  b.patches.clear();
  auto address = [&](ValueId id) -> void* {
    const Value& v = g.value(plan.root[static_cast<size_t>(id)]);
    const bool whole = v.name == kWholeArray;
    switch (v.storage) {
      case Storage::arena: return arena_.as<std::byte>() + plan.offset[static_cast<size_t>(id)];
      case Storage::parameter:
        return model_.parameters.as<float>() + (whole ? 0 : model_.table.parameter(v.name).begin);
      case Storage::gradient:
        return model_.gradients.as<float>() + (whole || v.name == kMetrics ? 0 : model_.table.parameter(v.name).begin);
      case Storage::state: return model_.state[static_cast<size_t>(v.name[1] - '0')].data();
      case Storage::buffer: return model_.buffers.as<float>() + model_.table.buffer(v.name).begin;
      case Storage::input: return v.name == kStepState ? &b.state : nullptr;
      case Storage::output:
        for (auto& [value, memory] : b.outputs)
          if (value == plan.root[static_cast<size_t>(id)]) return memory.data();
    }
    return nullptr;
  };
  for (size_t i = 0; i < b.steps.size(); ++i) {
    auto& step = b.steps[i];
    for (size_t k = 0; k < step.in.size(); ++k) {
      const Value& v = g.value(step.node->in[k]);
      step.in[k].data = address(step.node->in[k]);
      if (v.storage == Storage::input && v.name != kStepState) b.patches.push_back({&step.in[k], v.name == kLabels});
    }
    for (size_t k = 0; k < step.out.size(); ++k) step.out[k].data = address(step.node->out[k]);
    step.workspace = arena_.as<std::byte>() + plan.workspace_offset[i];
    if (step.node->kind == NodeKind::allreduce && !step.node->params.empty()) {
      const auto& p = step.node->params.as<BucketParams>();
      step.bucket = {model_.gradients.as<float>() + p.begin, static_cast<size_t>(p.end - p.begin)};
    }
  }
  for (auto& [value, memory] : b.outputs) b.output_views[g.value(value).name] = {g.value(value).spec, memory.data()};
}

void Executor::set_inputs(Bound& b, const StepInputs& inputs) {
  b.state = inputs.state;
  for (auto& p : b.patches)
    p.view->data = p.labels ? const_cast<int32_t*>(inputs.labels) : static_cast<void*>(const_cast<uint8_t*>(inputs.images));
}

void Executor::wait_all() {
  for (auto t : tickets_) gradients_.wait(t);
  tickets_.clear();
}

void Executor::run_node(Bound& b, size_t i) {
  auto& step = b.steps[i];
  switch (step.node->kind) {
    case NodeKind::compute:
      if (step.waits) wait_all();
      step.kernel->run({step.in, step.out, step.workspace});
      break;
    case NodeKind::view: break;
    case NodeKind::allreduce:
      if (step.bucket.data())
        tickets_.push_back(gradients_.start_allreduce(step.bucket));
      else
        statistics_.allreduce(std::span(step.in[0].as<float>(), static_cast<size_t>(step.in[0].spec.shape.elements())),
                              Reduce::sum);
      break;
    case NodeKind::all_gather:
      statistics_.all_gather({step.in[0].as<std::byte>(), static_cast<size_t>(step.in[0].spec.bytes())},
                             {step.out[0].as<std::byte>(), static_cast<size_t>(step.out[0].spec.bytes())});
      break;
  }
}

void Executor::run(Bound& b, const StepInputs& inputs) {
  set_inputs(b, inputs);
  for (size_t i = 0; i < b.steps.size(); ++i) run_node(b, i);
  wait_all();
}

const View& Executor::output(const Bound& b, const std::string& name) const { return b.output_views.at(name); }

std::string Executor::first_non_finite(Bound& b, const StepInputs& inputs) {
  auto finite = [](const View& v) {
    if (v.spec.dtype != DType::f32) return true;
    const int64_t n = v.spec.shape.rank() ? v.spec.shape[0] : 1, per = v.spec.shape.elements_from(1);
    for (int64_t k = 0; k < n; ++k)
      for (int64_t e = 0; e < per; ++e)
        if (!std::isfinite(v.as<float>()[v.spec.offset(k, e)])) return false;
    return true;
  };
  const Graph& g = b.plan->graph;
  std::string first;
  set_inputs(b, inputs);
  for (size_t i = 0; i < b.steps.size(); ++i) {
    const auto& step = b.steps[i];
    // To the end of the forward part even when found: other ranks wait in its collectives.
    if (step.node->backward) break;
    if (step.node->op == "batch_norm_running" || step.node->op == "optimizer_step") continue;
    for (size_t k = 0; k < step.in.size() && first.empty(); ++k) {
      const Value& v = g.value(step.node->in[k]);
      if ((v.storage == Storage::parameter || v.storage == Storage::buffer) && !finite(step.in[k]))
        first = fmt::format("parameter {}", v.name);
    }
    if (step.node->kind == NodeKind::allreduce && !step.node->params.empty()) continue;
    run_node(b, i);
    for (size_t k = 0; k < step.out.size() && first.empty(); ++k)
      if (!finite(step.out[k])) first = fmt::format("{} of layer {}", step.node->op, step.node->name);
  }
  return first;
}

}  // namespace lockstep
