// SPDX-License-Identifier: Apache-2.0
#include "runtime/graph/executor.h"

#include <algorithm>
#include <cmath>

#include "runtime/graph/bound_plan.h"

#include "kernels/core/bf16.h"
#include "runtime/comm/whereabouts.h"

namespace lockstep {

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
  gradients_on_device_ = collectives_ ? collectives_->allocate(model_.gradients.bytes())
                                      : DeviceMemory(device_, model_.gradients.bytes());
  buffers_ = DeviceMemory(device_, model_.buffers.bytes());
  for (const auto& s : model_.partial_sums) partial_sums_.emplace_back(device_, s.bytes());
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
  b.ports = input_ports(g);
  b.handed_over.resize(b.ports.size());
  if (!shared) make_transfers(b);
  b.steps.resize(g.nodes().size());
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    auto& step = b.steps[i];
    const Node& n = g.nodes()[i];
    step.node = &n;
    step.label = n.op + " " + n.name;
    step.waits = reads_summed_gradients(g, n);
    for (ValueId v : n.in) step.in.push_back({g.value(v).spec, nullptr});
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
    const KernelRequest request{n.params, in, out, b.plan->threads};
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
  const auto port_of = [&](const std::string& name) {
    size_t i = 0;
    while (b.ports[i].name != name) ++i;
    return i;
  };
  auto address = [&](ValueId id) -> void* {
    const Value& v = g.value(plan.root[static_cast<size_t>(id)]);
    const bool whole = v.name == kWholeArray;
    switch (v.storage) {
      case Storage::arena:
        return arena_.as<std::byte>() + plan.offset[static_cast<size_t>(id)];
      case Storage::parameter:
        if (whole) return parameters;
        // Kernels write to a parameter nowhere but in the whole array.
        return shared ? const_cast<float*>(model_.at(v.name))
                      : parameters + model_.table.parameter(v.name).begin;
      case Storage::gradient:
        if (v.name == kDiverged) return gradients + kDivergedMetric;
        return gradients + (whole || v.name == kMetrics ? 0 : model_.table.parameter(v.name).begin);
      case Storage::partial_sum: {
        const auto i = static_cast<size_t>(v.level - 1);
        float* sums = shared ? model_.partial_sums[i].as<float>() : partial_sums_[i].as<float>();
        return sums + (v.name == kMetrics ? 0 : model_.table.parameter(v.name).begin);
      }
      case Storage::state: {
        const auto i = static_cast<size_t>(v.name[1] - '0');
        return shared ? model_.state[i].data() : state_[i].data();
      }
      case Storage::ema: {
        if (whole) return ema;
        const FlatEntry& e = model_.table.parameter(v.name);
        return (model_.table.trains(e) ? ema : parameters) + e.begin;  // what is frozen is its own average
      }
      case Storage::half:
        return half + (whole ? 0 : model_.table.parameter(v.name).begin);
      case Storage::buffer:
        return buffers + model_.table.buffer(v.name).begin;
      case Storage::input:
        if (v.name == kStepState)
          return shared ? static_cast<void*>(&b.state) : b.inputs.as<std::byte>() + b.state_at;
        return shared ? nullptr : b.inputs.as<std::byte>() + b.port_at[port_of(v.name)];
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
        b.patches.push_back({&step.in[k], port_of(v.name)});
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
  gradients_.wait(gradients_.start_allreduce(host, whereabouts().doing));
  device_.copy_to_device(device.data(), host.data(), bytes);
  device_.synchronize();
}

static std::string collective_name(const Node& n) { return fmt::format("{} of {}", n.op, n.name); }

// Buckets go on beside the nodes that follow; what others read at once is waited for.
void Executor::start_on_device(const Node& node, std::span<float> data) {
  const auto count = static_cast<int64_t>(data.size());
  if (!node.params.empty()) {
    collectives_->start_gradient_allreduce(data.data(), count, node.params.as<BucketParams>().metrics(),
                                           collective_name(node));
    return;
  }
  collectives_->start_allreduce(data.data(), count, collective_name(node));
  collectives_->join();
}

// A kernel that was chosen may fail all the same: the choice may be an earlier run's, or another batch's.
static void run_kernel(Executor::Bound::Step& step, void* stream) {
  try {
    step.kernel->run({step.in, step.out, step.workspace, stream});
  } catch (Error& e) {
    const Node& n = *step.node;
    e.add_place("layer", n.name);
    e.add_place("op", n.op);
    e.add_place("kernel", n.kernel);
    e.set_hint(fmt::format("another kernel may do: remove the kernel cache, or resume with --retune{}{}",
                           e.hint().empty() ? "" : "; ", e.hint()));
    throw;
  }
}

void Executor::run_node(Bound& b, size_t i) {
  auto& step = b.steps[i];
  const bool shared = device_.shares_host_memory();
  const AtNode at(step.label.c_str());
  switch (step.node->kind) {
    case NodeKind::compute:
      run_kernel(step, device_.stream());
      break;
    case NodeKind::view:
      break;
    case NodeKind::allreduce: {
      const bool bucket = step.bucket.data() != nullptr;
      const std::span<float> data =
          bucket ? step.bucket
                 : std::span(step.in[0].as<float>(), static_cast<size_t>(step.in[0].spec.shape.elements()));
      if (collectives_) {
        start_on_device(*step.node, data);
      } else if (!shared) {
        float* host = bucket ? model_.gradients.as<float>() + (data.data() - gradients_on_device_.as<float>())
                             : reinterpret_cast<float*>(b.staging.data());
        reduce_on_host(data, {host, data.size()});
      } else if (bucket) {
        tickets_.push_back(gradients_.start_allreduce(data, step.label.c_str()));
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
        collectives_->all_gather(send, recv, mine, collective_name(*step.node));
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
  if (!device_.shares_host_memory())
    device_.copy_on_device(gradients_on_device_.as<float>() + kStopMetric,
                           b.inputs.as<std::byte>() + b.stop_at, sizeof(float));
  if (trace_ && trace_->recording()) return run_nodes_traced(b);
  for (size_t i = 0; i < b.steps.size(); ++i) {
    device_.begin_range(b.steps[i].label.c_str());
    if (b.steps[i].waits) wait_all();
    run_node(b, i);
    device_.end_range();
  }
  wait_all();
}

void Executor::run_nodes_traced(Bound& b) {
  static const Trace::Work waiting{"wait for allreduce", "wait", "", 0, 0};
  const Graph& g = b.plan->graph;
  if (b.works.empty())
    for (const auto& step : b.steps) {
      const Node& n = *step.node;
      Trace::Work work{step.label,
                       n.op == "optimizer_step" ? "update"
                       : n.backward             ? "backward"
                                                : "forward",
                       n.kernel, flops_of(g, n), 0};
      if (n.kind == NodeKind::allreduce || n.kind == NodeKind::all_gather) work.category = "communication";
      for (const auto* views : {&step.in, &step.out})
        for (const View& v : *views) work.bytes += v.spec.bytes();
      b.works.push_back(std::move(work));
    }
  int64_t begin = Trace::now_ns();
  const auto add = [&](const Trace::Work& work) {
    const int64_t end = Trace::now_ns();
    trace_->add(Trace::Lane::compute, work, begin, end);
    begin = end;
  };
  for (size_t i = 0; i < b.steps.size(); ++i) {
    if (b.steps[i].waits && !tickets_.empty()) {
      wait_all();
      add(waiting);
    }
    run_node(b, i);
    if (b.steps[i].node->kind != NodeKind::view) add(b.works[i]);
  }
  if (!tickets_.empty()) {
    wait_all();
    add(waiting);
  }
}

std::span<const Trace::Work> Executor::works(const Bound& b) const { return b.works; }

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
