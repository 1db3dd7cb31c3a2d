// SPDX-License-Identifier: Apache-2.0
// What this process may use of the host's processor.
#pragma once

#include <string>

namespace lockstep {

// Cores in the affinity mask, and no more than the cgroup's CPU quota (v1 or v2, rounded up).
int usable_cores();
// The job's threads_per_rank, or, where it says 0: the cores in the affinity mask, divided by the ranks on
// this host unless the mask is this rank's own (smaller than that of what started it), and no more than a
// rank's part of the cgroup's quota; at least 1.
int threads_per_rank(int requested, int local_ranks);
// Binds this process, before it starts threads, to its part of the affinity mask: equal and disjoint for the
// ranks of a host. Does nothing where there are more ranks than cores.
void take_share_of_cores(int local_rank, int local_ranks);
std::string processor_name();  // as /proc/cpuinfo has it: "AMD EPYC"

}  // namespace lockstep
