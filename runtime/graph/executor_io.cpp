// SPDX-License-Identifier: Apache-2.0
// What the executor gets from the host for each run, and hands back.
#include <algorithm>
#include <cstring>

#include "runtime/graph/bound_plan.h"

namespace lockstep {

void Executor::make_transfers(Bound& b) {
  int64_t bytes = 0;
  b.port_at.clear();
  for (const Port& port : b.ports) {
    b.port_at.push_back(bytes);
    bytes += next_piece(port.spec.bytes());
  }
  b.state_at = bytes;
  bytes += next_piece(sizeof(StepState));
  b.stop_at = bytes;
  bytes += sizeof(float);
  b.inputs = DeviceMemory(device_, bytes);
  b.upload = device_.make_upload(b.inputs.data(), bytes);
  std::vector<DeviceRuntime::Piece> results = {{gradients_on_device_.data(), metrics_bytes()}};
  for (const auto& o : b.outputs) results.push_back({o.device.data(), o.device.bytes()});
  b.download = device_.make_download(std::move(results));
}

int64_t Executor::metrics_bytes() const {
  return std::min<int64_t>(kMetricsFloats * 4, model_.gradients.bytes());
}

void Executor::set_inputs(Bound& b, const StepInputs& inputs) {
  match_ports(b.ports, inputs.tensors(), b.handed_over);
  b.state = inputs.state;
  const float stop = inputs.stop ? 1.0f : 0.0f;
  if (device_.shares_host_memory()) {
    model_.gradients.as<float>()[kStopMetric] = stop;
    for (auto& p : b.patches) p.view->data = const_cast<void*>(b.handed_over[p.port]);
    return;
  }
  auto* const to = static_cast<std::byte*>(b.upload->next());
  for (size_t i = 0; i < b.ports.size(); ++i)
    if (b.ports[i].read)
      std::memcpy(to + b.port_at[i], b.handed_over[i], static_cast<size_t>(b.ports[i].spec.bytes()));
  std::memcpy(to + b.state_at, &b.state, sizeof b.state);
  std::memcpy(to + b.stop_at, &stop, sizeof stop);
  b.upload->send();
}

void Executor::run(Bound& b, const StepInputs& inputs) {
  start(b, inputs);
  send_results(b);
  await_results(b);
}

void Executor::start(Bound& b, const StepInputs& inputs) {
  set_inputs(b, inputs);
  // The first run does what is done once (a kernel's attributes), which cannot be recorded.
  if (b.recordable && b.runs == 1 && device_.can_record()) {
    device_.begin_recording();
    run_nodes(b);
    b.recording = device_.end_recording();
  }
  device_.begin_range("run");
  if (b.recording)
    b.recording->replay();
  else
    run_nodes(b);
  device_.end_range();
  b.runs = std::min(b.runs + 1, 2);
}

void Executor::send_results(Bound& b) {
  if (!device_.shares_host_memory()) b.download->send();
}

void Executor::await_results(Bound& b) {
  if (device_.shares_host_memory()) return;
  const std::byte* from = b.download->wait();
  std::memcpy(model_.gradients.data(), from, static_cast<size_t>(metrics_bytes()));
  from += next_piece(metrics_bytes());
  for (auto& o : b.outputs) {
    std::memcpy(o.host.data(), from, static_cast<size_t>(o.device.bytes()));
    from += next_piece(o.device.bytes());
  }
}

}  // namespace lockstep
