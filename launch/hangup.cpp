// SPDX-License-Identifier: Apache-2.0
#include "launch/hangup.h"

#include <sys/syscall.h>
#include <unistd.h>
#include <csignal>

namespace lockstep {
namespace {

using Handler = void (*)(int);
Handler at_start = SIG_DFL;

// The system call itself: sanitizers take the function, and have not begun yet.
void note_hangup() {
  Handler kernels_action[8] = {};  // the handler, then flags and a mask
  if (::syscall(SYS_rt_sigaction, SIGHUP, nullptr, kernels_action, _NSIG / 8) == 0)
    at_start = kernels_action[0];
}

// A program's functions of this section run before all constructors of its libraries.
[[gnu::section(".preinit_array"), gnu::used]] void (*before_constructors)() = note_hangup;

}  // namespace

void restore_hangup() { std::signal(SIGHUP, at_start); }

}  // namespace lockstep
