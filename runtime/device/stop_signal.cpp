// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/stop_signal.h"

#include <time.h>
#include <unistd.h>
#include <csignal>

#include <atomic>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

constexpr int64_t kOneWish = 1'000'000'000;  // ns

std::atomic<int64_t> first_wish{0};  // when; 0: none
std::atomic<bool> second_stops{true};
static_assert(std::atomic<int64_t>::is_always_lock_free);

void on_signal(int) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t ns = now.tv_sec * 1'000'000'000 + now.tv_nsec;
  int64_t first = 0;
  if (first_wish.compare_exchange_strong(first, ns)) return;
  if (second_stops && ns - first >= kOneWish) ::_exit(static_cast<int>(Exit::try_again));
}

bool is_ignored(int signal) {
  struct sigaction before {};
  return sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
}

}  // namespace

void install_stop_signals(SecondWish second) {
  second_stops = second == SecondWish::stops_at_once;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
  if (!is_ignored(SIGHUP)) sigaction(SIGHUP, &action, nullptr);
}

bool stop_requested() { return first_wish.load(std::memory_order_relaxed) != 0; }

}  // namespace lockstep
