// SPDX-License-Identifier: Apache-2.0
// A rank's wish to stop: set by a signal, obeyed at the end of a step that all ranks agree on.
#pragma once

namespace lockstep {

// What another wish, a second or more after the first, does. Signals within a second are one wish: batch systems and
// launchers send several, to one process and through one another.
enum class SecondWish { stops_at_once, is_ignored };

// SIGUSR1, SIGTERM, SIGINT and, unless it is ignored (nohup), SIGHUP ask for a stop. stops_at_once: with exit code 75.
// is_ignored: who started this process ends it where the first wish is not enough.
void install_stop_signals(SecondWish second);
bool stop_requested();

}  // namespace lockstep
