// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/mpirun.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/core/error.h"
#include "launch/launcher/allocation.h"
#include "launch/launcher/ask_program.h"
#include "launch/launcher/hosts.h"

namespace lockstep {
namespace {

// By the names that Open MPI 4 and 5 have for batch systems; each passes over those it does not know.
constexpr const char* kNoAllocation = "^slurm,gridengine,tm,pbs,lsf,loadleveler,alps,pals,flux";

}  // namespace

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

void require_open_mpi(const std::string& mpirun) {
  std::string said = ask_program({mpirun, "--version"});
  said.resize(std::min(said.find('\n'), said.size()));
  if (said.find("Open MPI") != std::string::npos || said.find("OpenRTE") != std::string::npos) return;
  throw Error(Exit::unavailable, "E_MPIRUN_OTHER",
              fmt::format("this mpirun is not Open MPI's{}",
                          said.empty() ? "" : fmt::format(": to --version it says \"{}\"", said)))
      .at("mpirun", mpirun)
      .hint("Open MPI's is needed: put its folder first on the PATH, or --set instance_count=1");
}

// By the user, in Open MPI's words.
bool networks_are_chosen() {
  for (const char* component : {"btl_tcp", "oob_tcp"})
    for (const char* what : {"include", "exclude"})
      if (std::getenv(fmt::format("OMPI_MCA_{}_if_{}", component, what).c_str())) return true;
  return false;
}

std::vector<std::string> mpirun_command(const Job& job, int cores) {
  std::vector<std::string> c = {find_mpirun(), "-n", std::to_string(job.instance_count), "--bind-to", "none"};
  auto add = [&](std::initializer_list<const char*> words) { c.insert(c.end(), words.begin(), words.end()); };
  if (::geteuid() == 0) add({"--allow-run-as-root"});
  // Where nothing says which, Open MPI tries all networks that hosts seem to share, docker0 too, which joins none.
  std::string network = job.network_interface;
  if (network.empty() && !networks_are_chosen()) network = network_of_hosts(job);
  if (!network.empty())
    add({"--mca", "btl_tcp_if_include", network.c_str(), "--mca", "oob_tcp_if_include", network.c_str()});
  if (!job.hosts.empty()) {
    std::string list;
    for (const auto& h : job.hosts) list += (list.empty() ? "" : ",") + h;
    c.insert(c.end(), {"--host", list});
    // mpirun asks the batch system for the allocation's nodes, as it starts its daemons through it; without (ras) Slurm would start
    // them all on the first node. It counts tasks as places then, and a job may have more ranks: one for each CPU, say.
    if (in_batch_job()) add({"--oversubscribe"});
  }
  if (!job.hostfile.empty()) c.insert(c.end(), {"--hostfile", job.hostfile});
  if (!job.hosts.empty() || !job.hostfile.empty()) {
    // Clusters signal mpirun's daemons on other nodes too, which leave ranks a second otherwise. Its price, a minute for
    // each end that is none in order, the launcher does not pay: it ends mpirun (watch.cpp).
    if (in_batch_job()) add({"--mca", "odls_base_sigkill_timeout", "30"});
    return c;
  }
  add({"--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl", "self,vader"});
  // No batch system. Without rsh, Open MPI 4 takes its launcher for one host; Open MPI 5 has none and needs none.
  add({"--mca", "plm", "^rsh,slurm,tm,lsf,alps,pals"});
  add({"--mca", "ras", kNoAllocation});
  // No core is left for the communication threads: who waits in MPI yields to who computes.
  const int64_t threads =
      job.threads_per_rank > 0 ? job.threads_per_rank : std::max<int64_t>(1, cores / job.instance_count);
  if (job.instance_count * threads >= cores) add({"--mca", "mpi_yield_when_idle", "1"});
  return c;
}

}  // namespace lockstep
