// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/peer_loss.h"

#include "launch/commands/report_error.h"

namespace lockstep {

void PeerLoss::operator()(const LostPeer& lost) {
  mutex_.lock();  // for good
  report_.peer_lost();
  Error e = lost.error;
  if (e.exit() == Exit::try_again) {
    if (begun_) e.add_place("step", std::to_string(report_.step()));
    const std::string next = begun_ ? "resume with: " + resume_ : "start the job again: no step was done";
    e.set_hint(e.hint().empty() ? next : e.hint() + "; " + next);
  }
  if (!lost.told) report_error(e.what());
  if (note_) note_(e, lost.told);
  report_.exit_code(static_cast<int>(Exit::try_again));
}

void PeerLoss::set_note(Note note) {
  const std::lock_guard lock(mutex_);
  note_ = std::move(note);
}

}  // namespace lockstep
