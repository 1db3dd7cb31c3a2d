#include "runtime/comm/communicator.h"

#include <cstdlib>
#include <cstring>

namespace lockstep {
namespace {

// The value of the first of these variables that holds a number, else `fallback`.
int number_from(std::initializer_list<const char*> names, int fallback) {
  for (const char* name : names)
    if (const char* text = std::getenv(name)) {
      char* end = nullptr;
      const long value = std::strtol(text, &end, 10);
      if (end != text) return static_cast<int>(value);
    }
  return fallback;
}

}  // namespace

std::vector<std::string> Communicator::gather_text(const std::string& mine) {
  const auto ranks = static_cast<size_t>(size());
  const int64_t length = static_cast<int64_t>(mine.size());
  std::vector<int64_t> lengths(ranks);
  all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)));
  size_t longest = 0;
  for (int64_t l : lengths) longest = std::max(longest, static_cast<size_t>(l));
  std::vector<std::byte> send(longest), received(longest * ranks);
  std::memcpy(send.data(), mine.data(), mine.size());
  all_gather(send, received);
  std::vector<std::string> texts;
  for (size_t r = 0; r < ranks; ++r)
    texts.emplace_back(reinterpret_cast<const char*>(received.data()) + r * longest, static_cast<size_t>(lengths[r]));
  return texts;
}

std::string Communicator::broadcast_text(const std::string& text, int root) {
  auto length = static_cast<int64_t>(text.size());
  broadcast(std::as_writable_bytes(std::span(&length, 1)), root);
  std::string result = text;
  result.resize(static_cast<size_t>(length));
  broadcast(std::as_writable_bytes(std::span(result)), root);
  return result;
}

LauncherEnvironment launcher_environment() {
  LauncherEnvironment e;
  // A Slurm batch script has SLURM_NTASKS too, but only a step's tasks have SLURM_STEP_ID and a SLURM_PROCID of
  // their own; the batch step itself calls itself "batch" in SLURM_STEP_ID's extended form or is 4294967291.
  const bool mpirun = std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  const bool pmi = std::getenv("PMI_RANK") != nullptr;
  const char* step = std::getenv("SLURM_STEP_ID");
  const bool srun = step && std::getenv("SLURM_PROCID") && std::strcmp(step, "4294967291") != 0 &&
                    std::strcmp(step, "batch") != 0;
  e.present = mpirun || pmi || srun;
  if (!e.present) return e;
  e.rank = number_from({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}, 0);
  e.size = number_from({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, 1);
  e.local_rank = number_from({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}, 0);
  e.local_size = number_from({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"}, e.size);
  return e;
}

}  // namespace lockstep
