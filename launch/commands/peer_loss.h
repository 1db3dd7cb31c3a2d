// SPDX-License-Identifier: Apache-2.0
// What a rank of a job does about another one's loss, before its process leaves.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "launch/launcher/report.h"
#include "runtime/comm/communicator.h"

namespace lockstep {

class PeerLoss {
 public:
  // `resume`: the command that goes on with the run.
  PeerLoss(RankReport& report, std::string resume) : report_(report), resume_(std::move(resume)) {}

  // From any thread; only the first call does anything, and later ones wait for the end of the process.
  void operator()(const LostPeer& lost);
  // The first step is about to be done, or a checkpoint was found: there is something to resume.
  void begin() { begun_ = true; }
  // What else is to be done, once there is a run: its status and its log. Empty: nothing any more.
  using Note = std::function<void(const Error&, bool told)>;
  void set_note(Note note);

 private:
  RankReport& report_;
  std::string resume_;
  std::atomic<bool> begun_{false};
  std::mutex mutex_;
  Note note_;
};

}  // namespace lockstep
