// SPDX-License-Identifier: Apache-2.0
// lose_peer silent|killed|init CALL: the last rank stops answering, or dies, while the others are in CALL.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"

using namespace lockstep;

namespace {

int run(const std::string& how, const std::string& call) {
  CommOptions options;
  options.deadline_seconds = how == "silent" ? 1 : 3600;
  options.on_peer_lost = [](const std::string& what) {
    std::fprintf(stderr, "lost, told once: %s\n", what.c_str());
  };
  auto comm = make_mpi_communicator(options);
  if (how == "init") return 0;
  auto statistics = comm->duplicate("statistics");
  const AlignedBuffer gradients = comm->allocate(100000 * sizeof(float));
  float one = 1;
  statistics->allreduce(std::span<float>(&one, 1), Reduce::sum);
  comm->barrier();
  if (comm->rank() == comm->size() - 1) {
    if (how == "killed") ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }
  std::vector<float> data(100000, 1.0f);
  if (call == "allreduce") comm->allreduce(std::span<float>(data), Reduce::sum);
  if (call == "ticket") comm->wait(comm->start_allreduce(data));
  if (call == "gradients") comm->wait(comm->start_allreduce({gradients.as<float>(), 100000}));
  if (call == "small") statistics->allreduce(std::span<float>(&one, 1), Reduce::sum);
  if (call == "barrier") comm->barrier();
  if (call == "statistics") statistics->allreduce(std::span<float>(data), Reduce::sum);
  return 0;
}

}  // namespace

int main(int, char** argv) {
  try {
    return run(argv[1], argv[2]);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return e.code();
  }
}
