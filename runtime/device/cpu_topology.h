// What this process may use of the host's processor.
#pragma once

#include <string>

namespace lockstep {

// Cores in the affinity mask, and no more than the cgroup's CPU quota (v1 or v2, rounded up).
int usable_cores();
// The job's threads_per_rank, or, where it says 0, the usable cores divided by the ranks on this host, at least 1. A rank
// that its launcher has bound to cores of its own (mask smaller than the host) counts those as its own.
int threads_per_rank(int requested, int local_ranks);
std::string processor_name();  // as /proc/cpuinfo has it: "AMD EPYC"

}  // namespace lockstep
