// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/launched_ranks.h"

#include <unistd.h>

#include <cstdio>

#include "launch/commands/report_error.h"
#include "launch/job/trained_model.h"
#include "runtime/comm/together.h"

namespace lockstep {

int on_launched_ranks(const std::function<int(Communicator&)>& work) {
  const std::unique_ptr<Communicator> comm = launched_communicator();
  int code = 0;
  try {
    code = work(*comm);
  } catch (const AgreedError& e) {
    if (comm->rank() == 0) report_error(e.what());
    code = e.code();
  } catch (Error& e) {
    if (comm->size() == 1) throw;
    e.add_place("rank", std::to_string(comm->rank()));
    report_error(e.what());
    comm->leave(e);
    std::fflush(nullptr);
    ::_exit(e.code());
  }
  std::fflush(stdout);
  comm->barrier();
  return code;
}

}  // namespace lockstep
