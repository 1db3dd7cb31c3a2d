// SPDX-License-Identifier: Apache-2.0
// The launcher's signals, as a descriptor to poll.
#pragma once

#include <csignal>

namespace lockstep {

// SIGINT, SIGTERM, SIGUSR1 and, unless it is ignored (nohup), SIGHUP ask for a stop; SIGCHLD wakes who polls. Blocked as long
// as this lives.
class Signals {
 public:
  Signals();  // Error io (74)
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  int descriptor() const { return descriptor_; }
  // What mpirun starts with. It leaves ranks a second when it gets SIGTERM or SIGHUP itself, from a cluster that signals all
  // processes of a job: it is not to see them. Ranks do, as mpirun unblocks all for them.
  sigset_t for_mpirun() const;
  bool take_request() const;  // whether one that asks for a stop has come since the last call

 private:
  sigset_t before_{};
  int descriptor_ = -1;
};

}  // namespace lockstep
