#include "runtime/graph/executor.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "kernels/core/bf16.h"

namespace lockstep {

// A graph input of the host's: where the plan reads it, and where it waits for its copy.
struct InputSlot {
  DeviceMemory device;
  std::unique_ptr<void, std::function<void(void*)>> host;
};

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
  struct Output {
    ValueId value;
    DeviceMemory device;
    AlignedBuffer host;
  };
  std::vector<Output> outputs;
  std::map<std::string, View> output_views;
  struct Patch {
    View* view;
    std::string input;
  };
  std::vector<Patch> patches;  // views of what the host hands over anew each run; where it shares its memory
  // Elsewhere: images, labels, step state, and collectives' sums on their way over the host.
  std::map<std::string, InputSlot> inputs;
  std::vector<std::byte> staging;
  int runs = 0;
  bool recordable = true;
  std::unique_ptr<DeviceRuntime::Recording> recording;
};

Executor::Executor(ModelState& model, Communicator& gradients, Communicator& statistics,
                   const KernelChoice& how, DeviceRuntime& device, DeviceCollectives* collectives)
    : model_(model),
      gradients_(gradients),
      statistics_(statistics),
      how_(how),
      device_(device),
      collectives_(collectives) {
  tickets_.reserve(1024);
  if (device_.shares_host_memory()) return;
  parameters_ = DeviceMemory(device_, model_.parameters.bytes());
  gradients_on_device_ = DeviceMemory(device_, model_.gradients.bytes());
  buffers_ = DeviceMemory(device_, model_.buffers.bytes());
  for (const auto& s : model_.state) state_.emplace_back(device_, s.bytes());
  if (model_.ema.bytes() > 0) ema_ = DeviceMemory(device_, model_.ema.bytes());
  if (model_.half.bytes() > 0) half_ = DeviceMemory(device_, model_.half.bytes());
}
Executor::~Executor() = default;

Executor::Bound& Executor::bind(std::shared_ptr<const Plan> plan) {
  bound_.push_back(std::make_unique<Bound>());
  Bound& b = *bound_.back();
  b.plan = std::move(plan);
  const Graph& g = b.plan->graph;
  const bool shared = device_.shares_host_memory();
  for (ValueId v : g.values_in(Storage::output)) {
    const int64_t bytes = g.value(v).spec.bytes();
    b.outputs.push_back({v, shared ? DeviceMemory() : DeviceMemory(device_, bytes), AlignedBuffer(bytes)});
  }
  if (!shared)
    for (ValueId v : g.values_in(Storage::input)) {
      const int64_t bytes = g.value(v).spec.bytes();
      b.inputs[g.value(v).name] = {
          DeviceMemory(device_, bytes),
          {device_.allocate_host(bytes), [this](void* p) { device_.release_host(p); }}};
    }
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
    const bool collective = n.kind == NodeKind::allreduce || n.kind == NodeKind::all_gather;
    if (collective && !collectives_) b.recordable = false;
    if (collective && !shared && !collectives_) {
      int64_t bytes = 0;
      for (const auto* views : {&step.in, &step.out})
        for (const View& v : *views) bytes += v.spec.bytes();
      b.staging.resize(std::max(b.staging.size(), static_cast<size_t>(bytes)));
    }
    if (n.kind != NodeKind::compute) continue;
    std::vector<TensorSpec> in, out;
    for (const auto& view : step.in) in.push_back(view.spec);
    for (const auto& view : step.out) out.push_back(view.spec);
    const KernelRequest request{n.params, in, out, how_.threads};
    const KernelInfo* info = Registry::builtin().find(n.op, n.kernel, how_.device, kernel_dtype(request));
    step.kernel = info ? info->make(request) : nullptr;
    LOCKSTEP_ASSERT(step.kernel != nullptr, "kernel {} of {} vanished", n.kernel, n.op);
  }
  if (b.plan->arena_bytes > arena_.bytes()) {
    device_.synchronize();
    arena_ = DeviceMemory();
    arena_ = DeviceMemory(device_, b.plan->arena_bytes);
    for (auto& other : bound_) resolve(*other);
  } else {
    resolve(b);
  }
  return b;
}

void Executor::resolve(Bound& b) {
  const Plan& plan = *b.plan;
  const Graph& g = plan.graph;
  const bool shared = device_.shares_host_memory();
  auto* parameters = shared ? model_.parameters.as<float>() : parameters_.as<float>();
  auto* gradients = shared ? model_.gradients.as<float>() : gradients_on_device_.as<float>();
  auto* ema = shared ? model_.ema.as<float>() : ema_.as<float>();
  auto* half = shared ? model_.half.as<bf16>() : half_.as<bf16>();
  auto* buffers = shared ? model_.buffers.as<float>() : buffers_.as<float>();
  b.patches.clear();
  b.recording.reset();
  b.runs = 0;
  auto address = [&](ValueId id) -> void* {
    const Value& v = g.value(plan.root[static_cast<size_t>(id)]);
    const bool whole = v.name == kWholeArray;
    switch (v.storage) {
      case Storage::arena:
        return arena_.as<std::byte>() + plan.offset[static_cast<size_t>(id)];
      case Storage::parameter:
        return parameters + (whole ? 0 : model_.table.parameter(v.name).begin);
      case Storage::gradient:
        return gradients + (whole || v.name == kMetrics ? 0 : model_.table.parameter(v.name).begin);
      case Storage::state: {
        const auto i = static_cast<size_t>(v.name[1] - '0');
        return shared ? model_.state[i].data() : state_[i].data();
      }
      case Storage::ema:
        return ema + (whole ? 0 : model_.table.parameter(v.name).begin);
      case Storage::half:
        return half + (whole ? 0 : model_.table.parameter(v.name).begin);
      case Storage::buffer:
        return buffers + model_.table.buffer(v.name).begin;
      case Storage::input:
        if (!shared) return b.inputs.at(v.name).device.data();
        return v.name == kStepState ? &b.state : nullptr;
      case Storage::output:
        for (auto& o : b.outputs)
          if (o.value == plan.root[static_cast<size_t>(id)]) return shared ? o.host.data() : o.device.data();
    }
    return nullptr;
  };
  for (size_t i = 0; i < b.steps.size(); ++i) {
    auto& step = b.steps[i];
    for (size_t k = 0; k < step.in.size(); ++k) {
      const Value& v = g.value(step.node->in[k]);
      step.in[k].data = address(step.node->in[k]);
      if (shared && v.storage == Storage::input && v.name != kStepState)
        b.patches.push_back({&step.in[k], v.name});
    }
    for (size_t k = 0; k < step.out.size(); ++k) step.out[k].data = address(step.node->out[k]);
    step.workspace = arena_.as<std::byte>() + plan.workspace_offset[i];
    if (step.node->kind == NodeKind::allreduce && !step.node->params.empty()) {
      const auto& p = step.node->params.as<BucketParams>();
      step.bucket = {gradients + p.begin, static_cast<size_t>(p.end - p.begin)};
    }
  }
  for (auto& o : b.outputs) b.output_views[g.value(o.value).name] = {g.value(o.value).spec, o.host.data()};
}

namespace {

const void* address_of(const StepInputs& inputs, const std::string& name) {
  return name == kImages ? inputs.images : name == kLabels ? inputs.labels : static_cast<const void*>(inputs.timesteps);
}

}  // namespace

void Executor::set_inputs(Bound& b, const StepInputs& inputs) {
  b.state = inputs.state;
  const float stop = inputs.stop ? 1.0f : 0.0f;
  if (device_.shares_host_memory()) {
    model_.gradients.as<float>()[kStopMetric] = stop;
    for (auto& p : b.patches) p.view->data = const_cast<void*>(address_of(inputs, p.input));
    return;
  }
  // Whoever ran before has been waited for: the staging memory is free.
  for (auto& [input, slot] : b.inputs) {
    const void* from = input == kStepState ? &b.state : address_of(inputs, input);
    std::memcpy(slot.host.get(), from, static_cast<size_t>(slot.device.bytes()));
    device_.copy_to_device(slot.device.data(), slot.host.get(), slot.device.bytes());
  }
  float* metrics = model_.gradients.as<float>();
  metrics[kStopMetric] = stop;
  device_.copy_to_device(gradients_on_device_.as<float>() + kStopMetric, metrics + kStopMetric,
                         sizeof(float));
}

void Executor::upload_model() {
  model_.round_parameters();
  if (device_.shares_host_memory()) return;
  device_.copy_to_device(parameters_.data(), model_.parameters.data(), model_.parameters.bytes());
  device_.copy_to_device(buffers_.data(), model_.buffers.data(), model_.buffers.bytes());
  if (model_.ema.bytes() > 0) device_.copy_to_device(ema_.data(), model_.ema.data(), model_.ema.bytes());
  if (model_.half.bytes() > 0) device_.copy_to_device(half_.data(), model_.half.data(), model_.half.bytes());
  for (size_t i = 0; i < state_.size(); ++i)
    device_.copy_to_device(state_[i].data(), model_.state[i].data(), state_[i].bytes());
  device_.synchronize();
}

void Executor::download_model() {
  if (device_.shares_host_memory()) return;
  device_.copy_to_host(model_.parameters.data(), parameters_.data(), model_.parameters.bytes());
  device_.copy_to_host(model_.buffers.data(), buffers_.data(), model_.buffers.bytes());
  if (model_.ema.bytes() > 0) device_.copy_to_host(model_.ema.data(), ema_.data(), model_.ema.bytes());
  for (size_t i = 0; i < state_.size(); ++i)
    device_.copy_to_host(model_.state[i].data(), state_[i].data(), state_[i].bytes());
  device_.synchronize();
}

void Executor::wait_all() {
  if (collectives_) {
    collectives_->join();
    return;
  }
  for (auto t : tickets_) gradients_.wait(t);
  tickets_.clear();
}

// Over the host's memory, at the same place of its copy of the gradients.
void Executor::reduce_on_host(std::span<float> device, std::span<float> host) {
  const auto bytes = static_cast<int64_t>(device.size_bytes());
  device_.copy_to_host(host.data(), device.data(), bytes);
  device_.synchronize();
  gradients_.wait(gradients_.start_allreduce(host));
  device_.copy_to_device(device.data(), host.data(), bytes);
  device_.synchronize();
}

void Executor::run_node(Bound& b, size_t i) {
  auto& step = b.steps[i];
  const bool shared = device_.shares_host_memory();
  switch (step.node->kind) {
    case NodeKind::compute:
      if (step.waits) wait_all();
      step.kernel->run({step.in, step.out, step.workspace, device_.stream()});
      break;
    case NodeKind::view:
      break;
    case NodeKind::allreduce: {
      const bool bucket = step.bucket.data() != nullptr;
      const std::span<float> data =
          bucket ? step.bucket
                 : std::span(step.in[0].as<float>(), static_cast<size_t>(step.in[0].spec.shape.elements()));
      if (collectives_) {
        collectives_->start_allreduce(data.data(), static_cast<int64_t>(data.size()));
        if (!bucket) collectives_->join();
      } else if (!shared) {
        float* host = bucket ? model_.gradients.as<float>() + (data.data() - gradients_on_device_.as<float>())
                             : reinterpret_cast<float*>(b.staging.data());
        reduce_on_host(data, {host, data.size()});
      } else if (bucket) {
        tickets_.push_back(gradients_.start_allreduce(data));
      } else {
        statistics_.allreduce(data, Reduce::sum);
      }
      break;
    }
    case NodeKind::all_gather: {
      const int64_t mine = step.in[0].spec.bytes(), all = step.out[0].spec.bytes();
      auto* send = step.in[0].as<std::byte>();
      auto* recv = step.out[0].as<std::byte>();
      if (collectives_) {
        collectives_->all_gather(send, recv, mine);
        break;
      }
      std::byte* const staged = b.staging.data();
      if (!shared) {
        device_.copy_to_host(staged, send, mine);
        device_.synchronize();
      }
      std::byte* const gathered = shared ? recv : staged + mine;
      statistics_.all_gather({shared ? send : staged, static_cast<size_t>(mine)},
                             {gathered, static_cast<size_t>(all)});
      if (!shared) {
        device_.copy_to_device(recv, gathered, all);
        device_.synchronize();
      }
      break;
    }
  }
}

void Executor::run_nodes(Bound& b) {
  for (size_t i = 0; i < b.steps.size(); ++i) run_node(b, i);
  wait_all();
}

void Executor::fetch_results(Bound& b) {
  if (device_.shares_host_memory()) return;
  const int64_t metrics = std::min<int64_t>(kMetricsFloats * 4, gradients_on_device_.bytes());
  device_.copy_to_host(model_.gradients.data(), gradients_on_device_.data(), metrics);
  for (auto& o : b.outputs) device_.copy_to_host(o.host.data(), o.device.data(), o.device.bytes());
  device_.synchronize();
}

void Executor::run(Bound& b, const StepInputs& inputs) {
  set_inputs(b, inputs);
  // The first run does what is done once (a kernel's attributes), which cannot be recorded.
  if (b.recordable && b.runs == 1 && device_.can_record()) {
    device_.begin_recording();
    run_nodes(b);
    b.recording = device_.end_recording();
  }
  if (b.recording)
    b.recording->replay();
  else
    run_nodes(b);
  b.runs = std::min(b.runs + 1, 2);
  fetch_results(b);
}

const View& Executor::output(const Bound& b, const std::string& name) const {
  return b.output_views.at(name);
}

std::string Executor::first_non_finite(Bound& b, const StepInputs& inputs) {
  std::vector<std::byte> copy;
  auto finite = [&](View v) {
    if (v.spec.dtype != DType::f32 && v.spec.dtype != DType::bf16) return true;
    if (!device_.shares_host_memory()) {
      copy.resize(static_cast<size_t>(v.spec.bytes()));
      device_.copy_to_host(copy.data(), v.data, v.spec.bytes());
      device_.synchronize();
      v.data = copy.data();
    }
    const int64_t n = v.spec.shape.rank() ? v.spec.shape[0] : 1, per = v.spec.shape.elements_from(1);
    for (int64_t k = 0; k < n; ++k)
      for (int64_t e = 0; e < per; ++e)
        if (const int64_t at = v.spec.offset(k, e);
            !std::isfinite(v.spec.dtype == DType::bf16 ? float(v.as<bf16>()[at]) : v.as<float>()[at]))
          return false;
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
      if ((v.storage == Storage::parameter || v.storage == Storage::ema || v.storage == Storage::buffer) &&
          !finite(step.in[k]))
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
