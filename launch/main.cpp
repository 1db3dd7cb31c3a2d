// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <string_view>

#include "launch/commands/command.h"

namespace {

// At the end of each parallel loop OpenMP's threads spin for milliseconds before they sleep. Beside other programs they spin
// on the core that the one they wait for needs: on two cores beside four busy processes an image took many times as long.
// Training has its cores for itself; what is asked shares a machine, and spins a thousand times, some microseconds: 3 % slower
// on an idle machine, where no spinning at all is 28 %. libgomp looks at its environment before main(), once.
void let_waiting_threads_sleep(int argc, char** argv) {
  const auto named = [&](const lockstep::Command& c) { return std::string_view(c.name) == argv[1]; };
  const auto& all = lockstep::commands();
  const auto it = argc < 2 ? all.end() : std::ranges::find_if(all, named);
  if (it == all.end() || !it->shares_machine) return;
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  char self[PATH_MAX] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return;
  ::setenv("GOMP_SPINCOUNT", "1000", 1);
  ::execv(self, argv);  // where it fails, threads spin
}

}  // namespace

int main(int argc, char** argv) {
  let_waiting_threads_sleep(argc, argv);
  return lockstep::run_command_line(argc, argv);
}
