// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/whereabouts.h"

#include "runtime/telemetry/trace.h"

namespace lockstep {

Whereabouts& whereabouts() {
  static Whereabouts process;
  return process;
}

OwnWork::OwnWork(const char* what)
    : what_before_(whereabouts().own_work), since_before_(whereabouts().own_work_since) {
  whereabouts().own_work = what;
  if (since_before_ == 0) whereabouts().own_work_since = Trace::now_ns();
}

OwnWork::~OwnWork() {
  whereabouts().own_work = what_before_;
  whereabouts().own_work_since = since_before_;
}

}  // namespace lockstep
