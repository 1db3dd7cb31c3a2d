// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"

namespace lockstep {

Signals::Signals() {
  sigset_t watched;
  sigemptyset(&watched);
  for (int s : {SIGINT, SIGTERM, SIGUSR1, SIGCHLD}) sigaddset(&watched, s);
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&watched, SIGHUP);
  ::sigprocmask(SIG_BLOCK, &watched, &before_);
  descriptor_ = ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor_ >= 0) return;
  const int error = errno;
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  throw Error(Exit::io, "E_PIPE", fmt::format("cannot watch mpirun: {}", std::strerror(error)));
}

Signals::~Signals() {
  ::close(descriptor_);
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

sigset_t Signals::for_mpirun() const {
  sigset_t mask = before_;
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGHUP);
  return mask;
}

bool Signals::take_request() const {
  signalfd_siginfo info{};
  bool any = false;
  while (::read(descriptor_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    any |= info.ssi_signo != SIGCHLD;
  return any;
}

}  // namespace lockstep
