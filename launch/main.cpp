// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <string_view>

#include "launch/commands/command.h"

namespace {

// oneDNN's threads are OpenMP's. They spin for milliseconds after each of its primitives, on cores that ours need, or other programs;
// a thousand turns are some microseconds. libgomp looks at its environment before main(), once.
void let_openmp_threads_sleep(int argc, char** argv) {
  const auto named = [&](const lockstep::Command& c) { return std::string_view(c.name) == argv[1]; };
  const auto& all = lockstep::commands();
  const auto it = argc < 2 ? all.end() : std::ranges::find_if(all, named);
  if (it == all.end() || !it->computes) return;
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  char self[PATH_MAX] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return;
  ::setenv("GOMP_SPINCOUNT", "1000", 1);
  ::execv(self, argv);  // where it fails, they spin
}

}  // namespace

int main(int argc, char** argv) {
  let_openmp_threads_sleep(argc, argv);
  return lockstep::run_command_line(argc, argv);
}
