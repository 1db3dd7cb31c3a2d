// SPDX-License-Identifier: Apache-2.0
// The nodes that a batch system has given to this process: of Slurm, PBS and LSF.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/job/job.h"

namespace lockstep {

struct AllocatedNode {
  std::string name;
  int64_t tasks = 0;  // that the batch system was asked for, or else 1
  int64_t cpus = 0;   // 0: unknown
};

// Whether a batch system has started this process.
bool in_batch_job();
// Empty: none says. Errors: config (78) for a list that cannot be read.
std::vector<AllocatedNode> allocated_nodes();
// "node[1-3,07],gpu1" as names. Empty: it cannot be read.
std::vector<std::string> expand_nodes(const std::string& list);
// The job with the allocation's nodes as its `hosts`, where there are several and it names none itself: as many ranks on each
// as can be told apart, on no node more than its tasks, or else its CPUs. Errors: config (78).
Job on_allocated_nodes(Job job);

}  // namespace lockstep
