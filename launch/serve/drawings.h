// SPDX-License-Identifier: Apache-2.0
// Drawings under way, by the address that asked for them: how far they are, and that they are to end.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace lockstep::serve {

// It is there as long as its request.
struct UnderWay {
  UnderWay(std::string who, int64_t evaluations) : peer(std::move(who)), steps(evaluations) {}
  const std::string peer;
  const int64_t steps;
  const std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  std::atomic<int64_t> done = 0;
  std::atomic<bool> interrupted = false, picture_wanted = false;

  void set_picture(std::string base64) {
    const std::lock_guard lock(mutex_);
    picture_ = std::move(base64);
  }
  std::string picture() const {
    const std::lock_guard lock(mutex_);
    return picture_;
  }

 private:
  mutable std::mutex mutex_;
  std::string picture_;  // the first of them, as PNG; "": none yet
};

class Drawings {
 public:
  std::shared_ptr<UnderWay> begin(const std::string& peer, int64_t evaluations);
  // Those of an address, the oldest first.
  std::vector<std::shared_ptr<UnderWay>> of(const std::string& peer) const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::weak_ptr<UnderWay>> all_;
};

}  // namespace lockstep::serve
