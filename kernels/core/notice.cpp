// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/notice.h"

#include <mutex>
#include <set>
#include <vector>

namespace lockstep {
namespace {

std::mutex mutex;
struct State {  // guarded by mutex
  std::set<std::string> said;
  std::vector<std::string> waiting;  // for a sink
  std::function<void(const std::string&)> sink;
};
// Kept to the process's end: libraries speak while it ends, too.
State& state() {
  static auto& s = *new State;
  return s;
}

}  // namespace

void notice_once(const std::string& text) {
  const std::lock_guard lock(mutex);
  State& s = state();
  if (!s.said.insert(text).second) return;
  if (s.sink)
    s.sink(text);
  else
    s.waiting.push_back(text);
}

void set_notices(std::function<void(const std::string&)> sink) {
  const std::lock_guard lock(mutex);
  State& s = state();
  s.sink = std::move(sink);
  if (!s.sink) return;
  for (const std::string& text : s.waiting) s.sink(text);
  s.waiting.clear();
}

}  // namespace lockstep
