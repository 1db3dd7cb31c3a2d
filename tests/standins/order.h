// SPDX-License-Identifier: Apache-2.0
// What comes after what, as CUDA promises it, by vector clocks: work of one lane (a stream, or a stream's part
// of one recorded graph) in its order; what waits for an event after all that the recorded work came after;
// what the host starts after all that it has waited for. Two pieces of work that touch the same bytes, one of
// them writing, without such an order are a finding, whichever came first this time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lockstep::standins {

// Bytes that a piece of work touches; of memory that the GPU reaches.
struct Access {
  const void* at = nullptr;
  size_t bytes = 0;
  bool writes = false;
};

// How far each lane has come.
class Clock {
 public:
  void join(const Clock& other);
  uint64_t of(int lane) const { return static_cast<size_t>(lane) < times_.size() ? times_[lane] : 0; }
  void tick(int lane);

 private:
  std::vector<uint64_t> times_;
};

// Everything below under one lock.
int new_lane();
// Work of that lane, which knows what `clock` knows and becomes part of it.
void work(Clock& clock, int lane, const std::string& what, const std::vector<Access>& accesses);
// Host code has waited for it: what it starts from now on comes after.
void host_waited_for(const Clock& clock);
void host_waited_for_all();
// Memory goes: what has touched it must be done, and known to the host to be.
void forget(const void* begin, size_t bytes);

}  // namespace lockstep::standins
