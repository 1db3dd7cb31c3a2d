// SPDX-License-Identifier: Apache-2.0
#include "launch/hangup.h"

#include <sys/syscall.h>
#include <unistd.h>
#include <csignal>
#include <cstdint>

namespace lockstep {
namespace {

using Handler = void (*)(int);
Handler at_start = SIG_DFL;

// As the kernel has it: a bit a signal.
using Mask = uint64_t;
constexpr Mask kHangup = Mask{1} << (SIGHUP - 1);
Mask blocked_at_start = 0;

// The system calls themselves: sanitizers take the functions, and have not begun yet.
void hold_hangup() {
  Handler kernels_action[8] = {};  // the handler, then flags and a mask
  if (::syscall(SYS_rt_sigaction, SIGHUP, nullptr, kernels_action, sizeof(Mask)) == 0)
    at_start = kernels_action[0];
  ::syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kHangup, &blocked_at_start, sizeof(Mask));
}

// A program's functions of this section run before all constructors of its libraries.
[[gnu::section(".preinit_array"), gnu::used]] void (*before_constructors)() = hold_hangup;

}  // namespace

void restore_hangup() {
  std::signal(SIGHUP, at_start);
  if ((blocked_at_start & kHangup) == 0)
    ::syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &kHangup, nullptr, sizeof(Mask));
}

}  // namespace lockstep
