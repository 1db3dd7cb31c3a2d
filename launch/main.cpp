// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>

#include "launch/commands/command.h"
#include "launch/hangup.h"
#include "launch/openmp_threads.h"

int main(int argc, char** argv) {
  lockstep::restore_hangup();
  const auto& all = lockstep::commands();
  const auto named = [&](const lockstep::Command& c) { return std::string_view(c.name) == argv[1]; };
  if (const auto it = argc < 2 ? all.end() : std::ranges::find_if(all, named);
      it != all.end() && it->computes)
    lockstep::let_openmp_threads_sleep();
  return lockstep::run_command_line(argc, argv);
}
