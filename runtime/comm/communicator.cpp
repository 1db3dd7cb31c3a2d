// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/communicator.h"

#include <algorithm>
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

// A Slurm batch script or an interactive allocation's shell has SLURM_PROCID and SLURM_NTASKS too, but its
// step is one of the reserved ones at the upper end of 32 bits (batch 4294967291, interactive 4294967290).
bool in_slurm_step() {
  const char* step = std::getenv("SLURM_STEP_ID");
  if (!step || !std::getenv("SLURM_PROCID")) return false;
  char* end = nullptr;
  const unsigned long id = std::strtoul(step, &end, 10);
  return end != step && *end == '\0' && id < 0xfffffff0UL;
}

// This node's entry of SLURM_STEP_TASKS_PER_NODE, which looks like "4(x2),3".
int slurm_tasks_here(int fallback) {
  const char* list = std::getenv("SLURM_STEP_TASKS_PER_NODE");
  long node = number_from({"SLURM_NODEID"}, 0);
  while (list && *list) {
    char* end = nullptr;
    const long tasks = std::strtol(list, &end, 10);
    if (end == list || tasks <= 0) break;
    long nodes = 1;
    if (std::strncmp(end, "(x", 2) == 0) {
      nodes = std::strtol(end + 2, &end, 10);
      end += *end == ')';
    }
    if (node < nodes) return static_cast<int>(tasks);
    node -= nodes;
    list = end + (*end == ',');
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
  std::copy_n(reinterpret_cast<const std::byte*>(mine.data()), mine.size(), send.begin());
  all_gather(send, received);
  std::vector<std::string> texts;
  for (size_t r = 0; r < ranks; ++r)
    texts.emplace_back(reinterpret_cast<const char*>(received.data()) + r * longest,
                       static_cast<size_t>(lengths[r]));
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
  const bool mpirun = std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  // A step of one task launches no ranks: `srun --pty bash` is one, and what is typed there starts its own.
  const bool pmi = std::getenv("PMI_RANK") != nullptr && number_from({"PMI_SIZE"}, 1) > 1;
  const bool slurm = in_slurm_step() && number_from({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, 1) > 1;
  e.present = mpirun || pmi || slurm;
  if (!e.present) return e;
  e.rank = number_from({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}, 0);
  e.size = number_from({"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}, 1);
  e.local_rank = number_from({"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"}, 0);
  e.local_size = number_from({"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}, 0);
  if (e.local_size == 0) e.local_size = slurm_tasks_here(e.size);
  return e;
}

}  // namespace lockstep
