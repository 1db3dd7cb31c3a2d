// SPDX-License-Identifier: Apache-2.0
#include "launch/job/availability.h"

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/device/device_runtime.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

Error unavailable(const Job& job, const std::string& key, std::string message) {
  Error error(Exit::config, "E_JOB_UNAVAILABLE", std::move(message));
  // `hyperparameters.backend` is where the article's form has it.
  for (const std::string& path : {key, "hyperparameters." + key})
    if (const auto where = job.where.find(path); where != job.where.end()) {
      error.add_place("job", where->second);
      error.add_place("key", path);
    }
  return error;
}

}  // namespace

void require_built(const Job& job) {
  if (job.backend == "nccl" && !built_with_nccl())
    throw unavailable(job, "backend", "backend nccl: this build has no NCCL").hint("backend: mpi works here");
  if (job.device == "cuda" && !has_cuda())
    throw unavailable(job, "device", "device cuda: this build has no CUDA").hint("device: cpu works here");
}

void require_available(const Job& job) {
  require_built(job);
  const bool is_rank = launcher_environment().present;
  // On other hosts nobody can look from here.
  const bool here = is_rank || (job.hosts.empty() && job.hostfile.empty());
  if ((job.device == "cuda" || job.backend == "nccl") && here) {
    const int gpus = gpu_count();
    if (gpus == 0)
      throw job.device == "cuda" ? unavailable(job, "device", "device cuda: this machine shows no GPU")
                                       .hint("device: cpu works here")
                                 : unavailable(job, "backend", "backend nccl: this machine shows no GPU")
                                       .hint("backend: mpi works here");
    if (job.backend == "nccl" && !has_nccl())
      throw unavailable(job, "backend", "backend nccl: " + nccl_description())
          .hint("LD_LIBRARY_PATH=FOLDER shows where it is; backend: mpi works here");
    if (job.backend == "nccl" && gpus < job.instance_count && !is_rank)
      throw unavailable(job, "backend",
                        fmt::format("backend nccl: {} ranks on this host, {} GPU{}", job.instance_count, gpus,
                                    gpus == 1 ? "" : "s"))
          .hint("backend: mpi lets ranks share a GPU");
  }
  if (!is_rank && !job.hostfile.empty() && !is_file(job.hostfile))
    throw Error(Exit::no_input, "E_JOB_HOSTFILE", fmt::format("no such file: {}", job.hostfile))
        .at("job", job.where.contains("hostfile") ? job.where.at("hostfile") : job.file)
        .at("key", "hostfile");
}

}  // namespace lockstep
