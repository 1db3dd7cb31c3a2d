// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/command.h"

namespace lockstep {

// One line per command.
extern const Command fit_command, check_command, plan_command, evaluate_command, predict_command,
    sample_command, report_command, serve_command, sagemaker_command, bench_command, data_command,
    kernels_command, completion_command, man_command;

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      fit_command,    check_command,   plan_command,       evaluate_command,  predict_command,
      sample_command, report_command,  serve_command,      sagemaker_command, bench_command,
      data_command,   kernels_command, completion_command, man_command};
  return all;
}

}  // namespace lockstep
