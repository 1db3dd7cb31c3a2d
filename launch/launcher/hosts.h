// SPDX-License-Identifier: Apache-2.0
// The machines that a job names, before ranks are started there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/job/job.h"

namespace lockstep {

// The hostfile, if there is one, can be read and has a slot for each rank, where it counts them all: Open MPI 5.0.7 may wait for
// ever where it has not. Errors: config (78), no_input (66), io (74), naming the file, its place and the key.
void require_places(const Job& job);

// Each name of `hosts`, or in the hostfile, is one that the resolver knows, ssh's configuration, or this machine itself. Where
// a batch system or an agent of the user's own (OMPI_MCA_plm_rsh_agent) starts the ranks, names are its own and are not looked
// at. A resolver has five seconds. Errors: config (78) naming the hosts, their place and the key, and those of
// require_places.
void require_known_hosts(const Job& job);

// How many machines the job runs on, at least 1.
int64_t host_count(const Job& job);
// The subnet by which the hosts have their names (network_of); "": not known, or a batch system or an agent of the user's own
// knows the way.
std::string network_of_hosts(const Job& job);
// Those of the job's hosts, but for this one, where a command cannot be run now, the way that mpirun starts ranks. They are
// asked at once, and have a few seconds. None where a batch system reaches them.
std::vector<std::string> silent_hosts(const Job& job);

}  // namespace lockstep
