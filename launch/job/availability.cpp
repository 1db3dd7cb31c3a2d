#include "launch/job/availability.h"

#include <filesystem>

#include "kernels/core/error.h"

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

void require_available(const Job& job) {
  if (job.backend == "nccl")
    throw unavailable(job, "backend", "backend nccl: this build has no NCCL and no CUDA")
        .hint("backend: mpi trains on CPUs");
  if (job.device == "cuda")
    throw unavailable(job, "device", "device cuda: this build has no CUDA").hint("device: cpu works here");
  if (job.device == "simt")
    throw unavailable(job, "device", "device simt: this build has no CUDA kernels to run on the CPU")
        .hint("device: cpu works here");
  if (!job.hostfile.empty() && !std::filesystem::exists(job.hostfile))
    throw Error(Exit::no_input, "E_JOB_HOSTFILE", fmt::format("no such hostfile: {}", job.hostfile))
        .at("job", job.where.contains("hostfile") ? job.where.at("hostfile") : job.file)
        .at("key", "hostfile");
}

}  // namespace lockstep
