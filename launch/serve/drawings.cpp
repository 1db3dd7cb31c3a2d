// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/drawings.h"

namespace lockstep::serve {

std::shared_ptr<UnderWay> Drawings::begin(const std::string& peer, int64_t evaluations) {
  auto one = std::make_shared<UnderWay>(peer, evaluations);
  const std::lock_guard lock(mutex_);
  std::erase_if(all_, [](const std::weak_ptr<UnderWay>& w) { return w.expired(); });
  all_.push_back(one);
  return one;
}

std::vector<std::shared_ptr<UnderWay>> Drawings::of(const std::string& peer) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<UnderWay>> own;
  for (const auto& weak : all_)
    if (auto one = weak.lock(); one && one->peer == peer) own.push_back(std::move(one));
  return own;
}

}  // namespace lockstep::serve
