// SPDX-License-Identifier: Apache-2.0
// A rank's wish to stop: set by a signal, obeyed at the end of a step that all ranks agree on.
#pragma once

namespace lockstep {

// SIGUSR1 asks for a stop; SIGINT and SIGTERM too where no launcher of ours stands between (a single
// process). A second such signal ends the process at once with 75.
void install_stop_signals(bool interrupt_too);
bool stop_requested();

}  // namespace lockstep
