// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/memory_check.h"

#include <algorithm>

#include "runtime/device/device_runtime.h"
#include "runtime/device/memory.h"

namespace lockstep {
namespace {

// Ranks of this job that one machine starts; hosts of a file may have any number of slots.
int64_t ranks_of_a_machine(const Job& job) {
  if (!job.hostfile.empty()) return 1;
  const auto hosts = std::max<int64_t>(1, static_cast<int64_t>(job.hosts.size()));
  return (job.instance_count + hosts - 1) / hosts;
}

std::string gigabytes(int64_t bytes) { return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9); }

}  // namespace

std::string memory_warning(const Job& job, const CheckedJob& checked) {
  const bool on_gpu = device_of(job) == Device::cuda;
  const int64_t available = on_gpu ? gpu_memory() : usable_memory();
  if (available == 0) return "";
  const int64_t shares = on_gpu ? std::max(1, gpu_count()) : 1;
  const int64_t ranks = (ranks_of_a_machine(job) + shares - 1) / shares;
  const auto warning = [&](int64_t bytes, const char* what) {
    return fmt::format("{} of {} would take {}, this {} has {}", what,
                       ranks == 1 ? "a rank" : fmt::format("{} ranks", ranks), gigabytes(bytes),
                       on_gpu ? "GPU" : "machine", gigabytes(available));
  };
  // Before activations are planned: a model that cannot be here by far need not be compiled.
  const int64_t kept = checked_product("the bytes of all ranks", {ranks, checked.memory.total()});
  if (kept > available) return warning(kept, "parameters, gradients and optimizer state");
  const JobPlan plan = plan_job(job, false);
  const int64_t step = checked_product("the bytes of all ranks", {ranks, plan.memory.total()});
  const int64_t all = on_gpu ? step : checked_sum("the bytes of all ranks", {step, plan.data_bytes});
  return all > available ? warning(all, on_gpu ? "a training step" : "a training step and the data") : "";
}

}  // namespace lockstep
