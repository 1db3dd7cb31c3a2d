// SPDX-License-Identifier: Apache-2.0
// Which kernel runs each node: job state, the same on every rank, kept in the plan and in every checkpoint.
#pragma once

#include <map>
#include <string>

#include "kernels/core/kernel.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/device_runtime.h"
#include "runtime/graph/graph.h"

namespace lockstep {

// Op, parameters, dtypes, layouts and shapes without the batch: one choice serves every rank and a shorter
// last batch.
std::string kernel_signature(const Graph& graph, const Node& node);

using KernelTable = std::map<std::string, std::string>;  // signature -> kernel name

struct KernelChoice {
  Device device = Device::cpu;
  int threads = 1;
  std::string processor;   // part of the cache's key
  std::string cache_file;  // "" : no cache
  // Where candidates are timed; not needed on the CPU. A plan for a GPU that isn't here takes the first that
  // accepts, as the SIMT executor always does: its times say nothing.
  DeviceRuntime* runtime = nullptr;
  DType activations = DType::f32;  // bf16: where the device has kernels for it
  // The device records the step, where it can, and replays it: so are candidates timed, and what cannot be
  // recorded is none.
  bool recorded = true;
  // Kernels whose bits depend neither on the threads nor on what shares the batch (BitExact), for every node that
  // such a kernel accepts: in fp32 all of them. Which of several follows from the shapes (KernelInfo::yields); none
  // is timed, for they differ in rounding, and a busy moment must not change a picture.
  bool independent = false;
  bool can_time() const { return device == Device::cpu || (device == Device::cuda && runtime); }
};

// Adds a choice for every compute node's signature that `table` lacks. Where more than one fast kernel
// accepts the shapes, all ranks time them together on random data, and the one whose slowest rank is fastest
// wins; rank 0's cache spares the timing. One that fails while it is timed, on any rank, is out of the race,
// and the log has why. Collective over `comm`. Errors: 70 if no kernel accepts a node or each of several
// fails, and that of a device that is lost.
void choose_kernels(KernelTable& table, const Graph& graph, const KernelChoice& how, Communicator& comm);
// The same without timing: the first candidate that accepts, in the registry's order (for `check` and tests).
void choose_first_kernels(KernelTable& table, const Graph& graph, const KernelChoice& how);
// For a table from a checkpoint: drops the entries of this graph whose kernel this build or machine lacks and
// returns their signatures.
std::vector<std::string> drop_unavailable(KernelTable& table, const Graph& graph, const KernelChoice& how);
// $XDG_CACHE_HOME/lockstep/kernels.json or ~/.cache/lockstep/kernels.json; "" where there is no home.
std::string default_kernel_cache();

}  // namespace lockstep
