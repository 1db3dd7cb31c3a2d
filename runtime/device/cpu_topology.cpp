#include "runtime/device/cpu_topology.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

namespace lockstep {
namespace {

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

double read_number(const std::string& path) {
  std::ifstream in(path);
  double x = 0;
  return in >> x ? x : -1;
}

// The tightest quota from this process's cgroup up to the root, in cores; infinity: none.
double quota_cores() {
  double cores = INFINITY;
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("cpu") == std::string::npos) continue;
    for (;;) {
      if (v2) {
        std::ifstream max("/sys/fs/cgroup" + path + "/cpu.max");
        std::string quota;
        double period = 0;
        if (max >> quota >> period && quota != "max" && period > 0)
          cores = std::min(cores, std::stod(quota) / period);
      } else {
        const std::string base = "/sys/fs/cgroup/cpu" + path;
        const double quota = read_number(base + "/cpu.cfs_quota_us"),
                     period = read_number(base + "/cpu.cfs_period_us");
        if (quota > 0 && period > 0) cores = std::min(cores, quota / period);
      }
      if (path.empty() || path == "/") break;
      path = path.substr(0, path.rfind('/'));
    }
  }
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
  const int mask = affinity_cores(), host = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const bool bound = mask < host && local_ranks > 1 && mask <= host / local_ranks;
  return bound ? std::min(mask, usable_cores()) : std::max(1, usable_cores() / std::max(1, local_ranks));
}

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

}  // namespace lockstep
