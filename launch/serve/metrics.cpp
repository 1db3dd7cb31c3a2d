// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace lockstep::serve {

void Metrics::count(const std::string& route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
  Times& t = times_[route];
  const auto at = std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin();
  ++t.below[static_cast<size_t>(at)];
  t.sum += seconds, ++t.count;
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string text =
      "# HELP lockstep_requests_total Requests answered.\n# TYPE lockstep_requests_total counter\n";
  for (const auto& [key, n] : requests_)
    text +=
        fmt::format("lockstep_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, n);
  text +=
      "# HELP lockstep_request_seconds Time from a request to its answer.\n"
      "# TYPE lockstep_request_seconds histogram\n";
  for (const auto& [route, t] : times_) {
    int64_t sum = 0;
    for (size_t i = 0; i < t.below.size(); ++i) {
      sum += t.below[i];
      const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
      text +=
          fmt::format("lockstep_request_seconds_bucket{{route=\"{}\",le=\"{}\"}} {}\n", route, bound, sum);
    }
    text += fmt::format(
        "lockstep_request_seconds_sum{{route=\"{0}\"}} {1}\nlockstep_request_seconds_count{{route=\"{0}\"}} "
        "{2}\n",
        route, t.sum, t.count);
  }
  return text;
}

}  // namespace lockstep::serve
