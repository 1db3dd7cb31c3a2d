// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/mpirun.h"

#include <unistd.h>

#include <cstdlib>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

std::string find_mpirun() {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const auto colon = rest.find(':');
    std::string candidate = rest.substr(0, colon) + "/mpirun";
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  throw Error(Exit::config, "E_NO_MPIRUN",
              "the job has more than one rank, and there is no mpirun on the PATH")
      .hint("install openmpi-bin, or --set instance_count=1");
}

}  // namespace

std::vector<std::string> mpirun_command(const Job& job, int cores) {
  std::vector<std::string> c = {find_mpirun(), "-n", std::to_string(job.instance_count), "--bind-to", "none"};
  auto add = [&](std::initializer_list<const char*> words) { c.insert(c.end(), words.begin(), words.end()); };
  if (::geteuid() == 0) add({"--allow-run-as-root"});
  if (!job.hosts.empty()) {
    std::string list;
    for (const auto& h : job.hosts) list += (list.empty() ? "" : ",") + h;
    c.insert(c.end(), {"--host", list});
    return c;
  }
  if (!job.hostfile.empty()) {
    c.insert(c.end(), {"--hostfile", job.hostfile});
    return c;
  }
  add({"--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl", "self,vader"});
  add({"--mca", "plm", "isolated", "--mca", "ras", "^slurm,gridengine,tm,lsf,loadleveler"});
  // No core is left for the communication threads: who waits in MPI yields to who computes.
  const int64_t threads =
      job.threads_per_rank > 0 ? job.threads_per_rank : std::max<int64_t>(1, cores / job.instance_count);
  if (job.instance_count * threads >= cores) add({"--mca", "mpi_yield_when_idle", "1"});
  return c;
}

}  // namespace lockstep
