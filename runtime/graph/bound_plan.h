// SPDX-License-Identifier: Apache-2.0
// A plan on its device: kernels made, addresses known, and how its inputs and results travel. The executor's
// own.
#pragma once

#include <map>

#include "runtime/graph/executor.h"

namespace lockstep {

struct Executor::Bound {
  struct Step {
    const Node* node = nullptr;
    std::string label;  // op and layer
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
  std::vector<Port> ports;               // what the host hands over, without the step state
  std::vector<const void*> handed_over;  // in this run, one a port
  struct Patch {
    View* view;
    size_t port;
  };
  std::vector<Patch> patches;  // views of what the host hands over anew each run; where it shares its memory

  // Elsewhere: all inputs and the step state in one block, at these offsets; the wish to stop at its end.
  std::vector<int64_t> port_at;
  int64_t state_at = 0;
  int64_t stop_at = 0;
  DeviceMemory inputs;
  std::unique_ptr<DeviceRuntime::Upload> upload;
  std::unique_ptr<DeviceRuntime::Download> download;  // the metrics, then the outputs

  std::vector<Trace::Work> works;  // per step, once it has been traced

  std::vector<std::byte> staging;  // collectives' sums on their way over the host
  int runs = 0;
  bool recordable = true;
  std::unique_ptr<DeviceRuntime::Recording> recording;
};

}  // namespace lockstep
