// SPDX-License-Identifier: Apache-2.0
// Curves over steps, as SVG that takes its colours from the page: classes c0, c1, ... give a curve's, `line`, `dashed`, `dot` and
// `band` how it is drawn.
#pragma once

#include <string>
#include <vector>

namespace lockstep::report {

// One curve. A y that is not finite is a gap.
struct Series {
  enum class Draw {
    line,    // many points: means of neighbours, in a band from their least to their greatest
    dashed,  // with dots, as long as these are few
    dots,
  };
  std::string name;  // shown on pointing at it
  int colour = 0;
  Draw draw = Draw::line;
  std::vector<double> x = {}, y = {};  // of one length; x rises
};

struct Chart {
  std::string title, unit;
  bool from_zero = false;   // the axis of y begins there
  bool may_be_log = false;  // it is logarithmic where all is positive and the greatest is 20 times the least
  std::vector<Series> series = {};
};

// A figure with its caption; "" where no y is finite.
std::string figure(const Chart& chart);

// Multiples of 1, 2 or 5 times a power of ten within [low, high], so that there are `most` at most. low < high.
std::vector<double> linear_ticks(double low, double high, int most);
// Powers of ten within [low, high], eight at most, with 2 and 5 times these where there are too few. 0 < low < high.
std::vector<double> log_ticks(double low, double high);

// Not more than `most` points: neighbours become one, at the last one's x. Its y is the mean of those that are finite.
struct Thinned {
  std::vector<double> x, mean, least, greatest;
};
Thinned thinned(const std::vector<double>& x, const std::vector<double>& y, size_t most);

}  // namespace lockstep::report
