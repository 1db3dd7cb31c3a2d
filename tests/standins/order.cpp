// SPDX-License-Identifier: Apache-2.0
#include "tests/standins/order.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>

#include "tests/standins/memory.h"

namespace lockstep::standins {
namespace {

struct Touch {
  int lane = 0;
  uint64_t time = 0;
  std::string what;
  bool before(const Clock& clock) const { return clock.of(lane) >= time; }
};

// Bytes of which the same is known.
struct Stretch {
  uintptr_t end = 0;
  std::optional<Touch> written;
  std::vector<Touch> read;  // since
};

struct State {
  std::mutex mutex;
  std::map<uintptr_t, Stretch> memory;
  Clock host;
  std::vector<uint64_t> lanes;  // how far each has come
};
State& state() {
  static State* const all = new State;
  return *all;
}

// A stretch begins at `at` afterwards, if one covers it.
void split(std::map<uintptr_t, Stretch>& memory, uintptr_t at) {
  auto after = memory.upper_bound(at);
  if (after == memory.begin()) return;
  auto& [begin, stretch] = *std::prev(after);
  if (begin == at || stretch.end <= at) return;
  Stretch second = stretch;
  stretch.end = at;
  memory.emplace_hint(after, at, std::move(second));
}

void require_before(const Touch& earlier, const char* did, const Clock& clock, const std::string& what,
                    const char* does, uintptr_t at) {
  if (earlier.before(clock)) return;
  const Allocation where = allocation_at(reinterpret_cast<void*>(at));
  finding(what + " " + does + " what " + earlier.what + " " + did + ", with no event between (byte " +
          std::to_string(at - reinterpret_cast<uintptr_t>(where.begin)) + " of " +
          std::to_string(where.bytes) + ")");
}

void touch(State& s, const Clock& clock, const Touch& now, const Access& access) {
  const auto begin = reinterpret_cast<uintptr_t>(access.at), end = begin + access.bytes;
  split(s.memory, begin);
  split(s.memory, end);
  uintptr_t at = begin;
  for (auto i = s.memory.lower_bound(begin); at < end;) {
    if (i == s.memory.end() || i->first > at) {  // never touched up to there
      const uintptr_t to = i == s.memory.end() ? end : std::min(end, i->first);
      i = s.memory.emplace_hint(i, at, Stretch{to, {}, {}});
    }
    Stretch& stretch = i->second;
    const char* const does = access.writes ? "writes" : "reads";
    if (stretch.written) require_before(*stretch.written, "writes", clock, now.what, does, at);
    if (access.writes)
      for (const Touch& t : stretch.read) require_before(t, "reads", clock, now.what, does, at);
    else
      std::erase_if(stretch.read, [&](const Touch& t) { return t.before(clock); });
    at = stretch.end;
    if (access.writes) {
      i = s.memory.erase(i);
    } else {
      stretch.read.push_back(now);
      ++i;
    }
  }
  if (access.writes) s.memory[begin] = Stretch{end, now, {}};
}

}  // namespace

void Clock::join(const Clock& other) {
  times_.resize(std::max(times_.size(), other.times_.size()));
  for (size_t i = 0; i < other.times_.size(); ++i) times_[i] = std::max(times_[i], other.times_[i]);
}

void Clock::tick(int lane) {
  const auto i = static_cast<size_t>(lane);
  times_.resize(std::max(times_.size(), i + 1));
  times_[i] = ++state().lanes[i];
}

int new_lane() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.lanes.push_back(0);
  return static_cast<int>(s.lanes.size()) - 1;
}

void work(Clock& clock, int lane, const std::string& what, const std::vector<Access>& accesses) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  clock.join(s.host);
  clock.tick(lane);
  const Touch now{lane, clock.of(lane), what};
  for (const Access& access : accesses) {
    if (access.bytes == 0) continue;
    const Allocation where = allocation_at(access.at);
    if (!where.begin) finding(what + " is given memory that is not the device's, nor pinned");
    if (static_cast<const std::byte*>(access.at) + access.bytes > where.begin + where.bytes)
      finding(what + " is given " + std::to_string(access.bytes) + " bytes that reach beyond an allocation");
    touch(s, clock, now, access);
  }
}

void host_waited_for(const Clock& clock) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  s.host.join(clock);
}

void host_waited_for_all() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  for (size_t i = 0; i < s.lanes.size(); ++i) {
    Clock lane;
    lane.tick(static_cast<int>(i));
    s.host.join(lane);
  }
}

void forget(const void* begin, size_t bytes) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto from = reinterpret_cast<uintptr_t>(begin), to = from + bytes;
  for (auto i = s.memory.lower_bound(from); i != s.memory.end() && i->first < to; i = s.memory.erase(i)) {
    if (i->second.written) require_before(*i->second.written, "writes", s.host, "the host", "frees", from);
    for (const Touch& t : i->second.read) require_before(t, "reads", s.host, "the host", "frees", from);
  }
}

}  // namespace lockstep::standins
