// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/other_launchers.h"

#include <cstdlib>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"

namespace lockstep {
namespace {

bool is_set(const char* name) { return std::getenv(name) != nullptr; }

int number(const char* name) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : 0;
}

}  // namespace

void require_usable_launcher(const std::string& command) {
  const LauncherEnvironment launcher = launcher_environment();
  // mpirun and Slurm's PMIx plugin both set PMIX_RANK.
  if (launcher.present && !is_set("OMPI_COMM_WORLD_RANK") && is_set("SLURM_PROCID") && !is_set("PMIX_RANK"))
    throw Error(
        Exit::unavailable, "E_SRUN_PMIX",
        fmt::format("srun has started {} tasks without PMIx, by which Open MPI's ranks meet", launcher.size))
        .hint(fmt::format("srun --mpi=pmix {}", command));
  const int processes = number("WORLD_SIZE");
  if (launcher.present || processes < 2 || !is_set("RANK")) return;
  const std::string fit = fmt::format("{} --set instance_count={}", command, processes);
  const int here = number("LOCAL_WORLD_SIZE");
  throw Error(
      Exit::config, "E_TORCHRUN",
      fmt::format("torchrun, or a launcher like it, has started {} processes (WORLD_SIZE), each of which "
                  "would train by itself",
                  processes))
      .hint(here == processes
                ? fmt::format("without torchrun: {}", fit)
                : fmt::format("without it, on one of the hosts: {} --set 'hosts=[\"HOST:{}\", ...]'; in "
                              "Kubernetes an MPIJob (docs/clusters.md)",
                              fit, here > 0 ? here : 1));
}

}  // namespace lockstep
