// SPDX-License-Identifier: Apache-2.0
// Counts and times of requests, as Prometheus reads them (text format 0.0.4): base units, no text of a client's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace lockstep::serve {

class Metrics {
 public:
  // route: one of the server's own, or "other".
  void count(const std::string& route, int status, double seconds);
  std::string text() const;

 private:
  static constexpr std::array<double, 12> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                     0.1,   0.25,   0.5,   1,    5,     30};
  struct Times {
    std::array<int64_t, kBounds.size() + 1> below{};
    double sum = 0;
    int64_t count = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  std::map<std::string, Times> times_;
};

}  // namespace lockstep::serve
