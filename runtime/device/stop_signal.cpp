// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/stop_signal.h"

#include <unistd.h>
#include <csignal>

#include <atomic>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

std::atomic<int> requests{0};
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int) {
  if (requests.fetch_add(1) >= 1) ::_exit(static_cast<int>(Exit::try_again));
}

}  // namespace

void install_stop_signals(bool interrupt_too) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  if (!interrupt_too) return;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool stop_requested() { return requests.load(std::memory_order_relaxed) > 0; }

}  // namespace lockstep
