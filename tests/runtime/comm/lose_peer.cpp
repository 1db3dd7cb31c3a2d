// SPDX-License-Identifier: Apache-2.0
// lose_peer HOW CALL [RANK]: rank RANK (the last) does not come to CALL, which the others are in. HOW: it is stopped,
// hangs (silent), is killed, fails, or is at work of its own (works: for ever; slow: for longer than the deadline).
// init: nothing of all that.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/whereabouts.h"

using namespace lockstep;

namespace {

int say(const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return e.code();
}

void lose(Communicator& comm, const std::string& how, const std::string& call, const char* who) {
  auto statistics = comm.duplicate("statistics");
  const AlignedBuffer gradients = comm.allocate(100000 * sizeof(float));
  float one = 1;
  statistics->allreduce(std::span<float>(&one, 1), Reduce::sum);
  comm.barrier();
  if (comm.rank() == (who ? std::atoi(who) : comm.size() - 1)) {
    if (how == "killed") ::kill(::getpid(), SIGKILL);
    if (how == "stopped") ::kill(::getpid(), SIGSTOP);
    if (how == "fails") {
      comm.leave(Error(Exit::data, "E_DATA_READ", "a bad file").at("rank", comm.rank()));
      ::_exit(static_cast<int>(Exit::data));
    }
    while (how == "silent") ::pause();
    const OwnWork own("writing a checkpoint");
    while (how == "works") ::pause();
    if (how == "slow") ::sleep(8);
  }
  std::vector<float> data(100000, 1.0f);
  if (call == "allreduce") comm.allreduce(std::span<float>(data), Reduce::sum);
  if (call == "ticket") comm.wait(comm.start_allreduce(data, "allreduce bucket 0"));
  if (call == "gradients")
    comm.wait(comm.start_allreduce({gradients.as<float>(), 100000}, "allreduce bucket 0"));
  if (call == "small") statistics->allreduce(std::span<float>(&one, 1), Reduce::sum);
  if (call == "barrier") comm.barrier();
  if (call == "statistics") statistics->allreduce(std::span<float>(data), Reduce::sum);
}

int run(const std::string& how, const std::string& call, const char* who) {
  CommOptions options;
  options.deadline_seconds = how == "killed" || how == "fails" ? 3600 : 1;
  options.own_work_seconds = how == "slow" ? 3600 : 4;
  options.on_peer_lost = [](const LostPeer& lost) {
    if (!lost.told) std::fprintf(stderr, "lost, told once: %s\n", lost.error.what());
  };
  auto comm = make_mpi_communicator(options);
  if (how == "init") return 0;
  try {
    lose(*comm, how, call, who);
  } catch (const Error& e) {
    return say(e);  // before the way out, which has a deadline too
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argv[1], argv[2], argc > 3 ? argv[3] : nullptr);
  } catch (const Error& e) {
    return say(e);
  }
}
