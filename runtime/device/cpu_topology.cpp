// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/cpu_topology.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>
#include <cstdlib>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <tuple>
#include <vector>

#include "runtime/device/cgroup.h"

namespace lockstep {
namespace {

// The logical processors in a process's affinity mask; empty where it cannot be read. 0: this process.
std::vector<int> affinity_of(pid_t process) {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(process, sizeof set, &set) != 0) return cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) cpus.push_back(i);
  return cpus;
}

int affinity_cores() { return std::max(1, static_cast<int>(affinity_of(0).size())); }

double read_number(const std::string& path) {
  std::ifstream in(path);
  double x = 0;
  return in >> x ? x : -1;
}

// The tightest quota from this process's cgroup up to the root, in cores; infinity: none.
double quota_cores() {
  double cores = INFINITY;
  for_each_cgroup("cpu", [&](const std::string& group, bool v2) {
    if (v2) {
      std::ifstream max(group + "/cpu.max");
      std::string quota;
      double period = 0;
      if (max >> quota >> period && quota != "max" && period > 0)
        if (const double share = std::strtod(quota.c_str(), nullptr); share > 0)
          cores = std::min(cores, share / period);
    } else {
      const double quota = read_number(group + "/cpu.cfs_quota_us"),
                   period = read_number(group + "/cpu.cfs_period_us");
      if (quota > 0 && period > 0) cores = std::min(cores, quota / period);
    }
  });
  return cores;
}

}  // namespace

int usable_cores() {
  const double quota = quota_cores();
  const int cores = affinity_cores();
  return std::isfinite(quota) ? std::clamp(static_cast<int>(std::ceil(quota)), 1, cores) : cores;
}

int threads_per_rank(int requested, int local_ranks) {
  if (requested > 0) return requested;
  const int ranks = std::max(1, local_ranks), mask = affinity_cores();
  const int inherited = static_cast<int>(affinity_of(::getppid()).size());
  const bool own = mask < inherited;  // what started this rank may use more: the mask is for it alone
  double cores = own ? mask : mask / ranks;
  return std::max(1, static_cast<int>(std::min(cores, quota_cores() / ranks)));
}

void take_share_of_cores(int local_rank, int local_ranks) {
  auto cpus = affinity_of(0);
  const size_t share = cpus.size() / static_cast<size_t>(std::max(1, local_ranks));
  if (local_ranks <= 1 || share == 0) return;
  // Threads of one core side by side, and cores of one package, so that a share is of whole cores where it
  // can be.
  auto id = [](int cpu, const char* what) {
    return read_number(fmt::format("/sys/devices/system/cpu/cpu{}/topology/{}", cpu, what));
  };
  std::vector<std::tuple<double, double, int>> order;
  for (int cpu : cpus) order.emplace_back(id(cpu, "physical_package_id"), id(cpu, "core_id"), cpu);
  std::sort(order.begin(), order.end());
  cpu_set_t set;
  CPU_ZERO(&set);
  for (size_t i = 0; i < share; ++i)
    CPU_SET(static_cast<size_t>(std::get<2>(order[static_cast<size_t>(local_rank) * share + i])), &set);
  sched_setaffinity(0, sizeof set, &set);  // a refusal costs speed only
}

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

}  // namespace lockstep
