// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/command.h"

int main(int argc, char** argv) { return lockstep::run_command_line(argc, argv); }
