// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lockstep {

// What this process was started with for SIGHUP, nohup's ignoring it or its default, again. Libraries' constructors take the
// signal: that of UCX, which Open MPI 5 of Debian brings, for its debugger. One that has come meanwhile comes now.
void restore_hangup();

}  // namespace lockstep
