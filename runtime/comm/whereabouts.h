// SPDX-License-Identifier: Apache-2.0
// What this process is at. Its watchdog tells it to ranks that wait for this one (roll_call.h).
#pragma once

#include <atomic>
#include <cstdint>

namespace lockstep {

// Written by the thread that trains, read by the watchdog. Texts are literals, or outlive their being here.
struct Whereabouts {
  std::atomic<const char*> doing{""};  // the step's node; "": between steps
  std::atomic<const char*> own_work{""};
  std::atomic<int64_t> own_work_since{0};  // ns; 0: none
  std::atomic<int64_t> bytes_written{0};   // to files, so far
};
Whereabouts& whereabouts();

// Work of this rank alone, as a rule with its disk, for which others may wait: as long as this process answers,
// they take it for alive until CommOptions::own_work_seconds are over. On the thread that trains; of nested ones
// the innermost is named, and the outermost counts.
class OwnWork {
 public:
  explicit OwnWork(const char* what);
  ~OwnWork();
  OwnWork(const OwnWork&) = delete;
  OwnWork& operator=(const OwnWork&) = delete;

 private:
  const char* what_before_;
  int64_t since_before_;
};

class AtNode {
 public:
  explicit AtNode(const char* node) { whereabouts().doing.store(node, std::memory_order_relaxed); }
  ~AtNode() { whereabouts().doing.store("", std::memory_order_relaxed); }
  AtNode(const AtNode&) = delete;
  AtNode& operator=(const AtNode&) = delete;
};

}  // namespace lockstep
