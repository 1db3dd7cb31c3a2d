// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/together.h"

#include <algorithm>

#include "runtime/comm/error_text.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/device/memory.h"
#include "runtime/files/host_name.h"

namespace lockstep {
namespace {

std::string failure_of(const std::function<void()>& work) {
  const OwnWork own("work of its own");
  try {
    work();
  } catch (const Error& e) {
    return encode(e);
  } catch (const std::bad_alloc&) {
    return encode(out_of_memory());
  } catch (const std::exception& e) {
    return encode(Error(Exit::internal, "E_INTERNAL", e.what()));
  }
  return "";
}

}  // namespace

void together(Communicator& comm, const std::function<void()>& work) {
  const auto failures = comm.gather_text(failure_of(work));
  if (std::ranges::all_of(failures, [](const auto& f) { return f.empty(); })) return;
  const auto hosts = comm.gather_text(host_name());
  bool all = true;
  for (const auto& f : failures) all &= !f.empty();
  for (size_t r = 0; r < failures.size(); ++r)
    if (!failures[r].empty()) {
      Error e = decode_error(failures[r]);
      if (!all) e.add_place("rank", std::to_string(r));
      if (!all && hosts[r] != hosts[0]) e.add_place("host", hosts[r]);
      throw AgreedError(std::move(e));
    }
}

std::string on_root(Communicator& comm, const std::function<std::string()>& work) {
  std::string result, failure;
  if (comm.rank() == 0) failure = failure_of([&] { result = work(); });
  const std::string told = comm.broadcast_text(failure.empty() ? "+" + result : "-" + failure, 0);
  if (told[0] == '-') throw AgreedError(decode_error(told.substr(1)));
  return told.substr(1);
}

}  // namespace lockstep
