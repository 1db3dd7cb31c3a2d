// SPDX-License-Identifier: Apache-2.0
#include "launch/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/report/text.h"

namespace lockstep::report {
namespace {

constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();

// In units of the view, of which letters are 13 high: so that they can be read where the figure is as wide as a phone.
constexpr double kWidth = 480, kHeight = 300, kLeft = 52, kRight = 14, kTop = 12, kBottom = 40;
constexpr size_t kMostPoints = 240, kMostDots = 60;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void add(double v) {
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

// From values to places in the view.
class Axis {
 public:
  Axis(Range range, bool log, double from, double to)
      : low_(at(range.low, log)), high_(at(range.high, log)), log_(log), from_(from), to_(to) {}
  double operator()(double v) const { return from_ + (at(v, log_) - low_) / (high_ - low_) * (to_ - from_); }

 private:
  static double at(double v, bool log) { return log ? std::log10(v) : v; }
  double low_, high_;
  bool log_;
  double from_, to_;
};

struct Drawn {
  const Series* series;
  Thinned points;
};

// A little room on both sides; a single value gets some too.
Range padded(Range r, bool log, bool from_zero) {
  if (log) {
    const double room = std::pow(r.high / r.low, 0.04);
    return {r.low / room, r.high * room};
  }
  double room = 0.04 * (r.high - r.low);
  if (room == 0) room = r.low == 0 ? 1 : 0.1 * std::fabs(r.low);
  return {from_zero && r.low >= 0 ? 0 : r.low - room, r.high + room};
}

std::string path_of(const Thinned& p, const std::vector<double>& values, const Axis& x, const Axis& y) {
  std::string d;
  bool moves = true;
  for (size_t i = 0; i < p.x.size(); ++i) {
    const bool there = std::isfinite(values[i]);
    if (there) d += fmt::format("{}{:.1f} {:.1f}", moves ? "M" : "L", x(p.x[i]), y(values[i]));
    moves = !there;
  }
  return d;
}

// One closed shape for each stretch without a gap.
std::string band_of(const Thinned& p, const Axis& x, const Axis& y) {
  std::string d;
  for (size_t begin = 0, end = 0; begin < p.x.size(); begin = end + 1) {
    for (end = begin; end < p.x.size() && std::isfinite(p.mean[end]);) ++end;
    if (end - begin < 2) continue;
    for (size_t i = begin; i < end; ++i)
      d += fmt::format("{}{:.1f} {:.1f}", i == begin ? "M" : "L", x(p.x[i]), y(p.greatest[i]));
    for (size_t i = end; i-- > begin;) d += fmt::format("L{:.1f} {:.1f}", x(p.x[i]), y(p.least[i]));
    d += "Z";
  }
  return d;
}

std::string curve(const Drawn& drawn, const Axis& x, const Axis& y) {
  const Series& s = *drawn.series;
  const Thinned& p = drawn.points;
  std::string out = fmt::format("<g class=\"c{}\"><title>{}</title>", s.colour, html(s.name));
  if (s.draw == Series::Draw::line && p.x.size() < s.x.size())
    out += fmt::format("<path class=\"band\" d=\"{}\"/>", band_of(p, x, y));
  if (s.draw != Series::Draw::dots)
    out += fmt::format("<path class=\"{}\" d=\"{}\"/>", s.draw == Series::Draw::line ? "line" : "dashed",
                       path_of(p, p.mean, x, y));
  const auto finite = std::count_if(p.mean.begin(), p.mean.end(), [](double v) { return std::isfinite(v); });
  // A line of one point would not be seen.
  if (s.draw == Series::Draw::dots || finite == 1 ||
      (s.draw == Series::Draw::dashed && finite <= static_cast<std::ptrdiff_t>(kMostDots)))
    for (size_t i = 0; i < p.x.size(); ++i)
      if (std::isfinite(p.mean[i]))
        out += fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>", x(p.x[i]),
                           y(p.mean[i]), s.draw == Series::Draw::dots ? 5 : 3);
  return out + "</g>";
}

}  // namespace

std::vector<double> linear_ticks(double low, double high, int most) {
  const double raw = (high - low) / std::max(1, most - 1);
  double step = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1., 2., 5., 10.})
    if (factor * step >= raw) {
      step *= factor;
      break;
    }
  std::vector<double> ticks;
  // By whole numbers, so that 0.3 is not 0.30000000000000004.
  for (double k = std::ceil(low / step - 1e-9); k <= std::floor(high / step + 1e-9); ++k)
    ticks.push_back(step >= 1 ? k * step : k / std::round(1 / step));
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  const auto collect = [&](std::initializer_list<double> factors) {
    ticks.clear();
    for (double e = std::floor(std::log10(low)); e <= std::ceil(std::log10(high)); ++e)
      for (const double factor : factors)
        if (const double v = factor * std::pow(10, e); v >= low && v <= high) ticks.push_back(v);
  };
  collect({1});
  if (const size_t each = ticks.size() / 8 + 1; each > 1) {
    std::vector<double> some;
    for (size_t i = 0; i < ticks.size(); i += each) some.push_back(ticks[i]);
    return some;
  }
  if (ticks.size() < 3) collect({1, 2, 5});
  return ticks;
}

Thinned thinned(const std::vector<double>& x, const std::vector<double>& y, size_t most) {
  const size_t each = std::max<size_t>(1, (x.size() + most - 1) / most);
  Thinned t;
  for (size_t begin = 0; begin < x.size(); begin += each) {
    const size_t end = std::min(x.size(), begin + each);
    Range range;
    double sum = 0;
    size_t count = 0;
    for (size_t i = begin; i < end; ++i)
      if (std::isfinite(y[i])) range.add(y[i]), sum += y[i], ++count;
    t.x.push_back(x[end - 1]);
    t.mean.push_back(count > 0 ? sum / static_cast<double>(count) : kNothing);
    t.least.push_back(count > 0 ? range.low : kNothing);
    t.greatest.push_back(count > 0 ? range.high : kNothing);
  }
  return t;
}

std::string figure(const Chart& chart) {
  std::vector<Drawn> drawn;
  Range xs, ys;
  for (const Series& s : chart.series) {
    drawn.push_back({&s, thinned(s.x, s.y, kMostPoints)});
    const Thinned& p = drawn.back().points;
    for (size_t i = 0; i < p.x.size(); ++i)
      if (std::isfinite(p.mean[i])) xs.add(p.x[i]), ys.add(p.least[i]), ys.add(p.greatest[i]);
  }
  if (ys.empty()) return "";
  const bool log = chart.may_be_log && ys.low > 0 && ys.high > 20 * ys.low;
  const Range xr = xs.low == xs.high ? Range{xs.low - 1, xs.high + 1} : xs,
              yr = padded(ys, log, chart.from_zero);
  const Axis x(xr, false, kLeft, kWidth - kRight), y(yr, log, kHeight - kBottom, kTop);

  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight,
                                html(chart.title + " by step"));
  for (const double tick : log ? log_ticks(yr.low, yr.high) : linear_ticks(yr.low, yr.high, 7))
    svg += fmt::format(
        "<path class=\"grid\" d=\"M{} {:.1f}H{}\"/><text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
        kLeft, y(tick), kWidth - kRight, kLeft - 6, y(tick) + 4.5, short_number(tick));
  for (const double tick : linear_ticks(xr.low, xr.high, 6))
    svg += fmt::format(
        "<path class=\"axis\" d=\"M{:.1f} {}v5\"/><text x=\"{:.1f}\" y=\"{}\" "
        "text-anchor=\"middle\">{}</text>",
        x(tick), kHeight - kBottom, x(tick), kHeight - kBottom + 18, short_number(tick));
  svg += fmt::format("<path class=\"axis\" d=\"M{} {}V{}H{}\"/>", kLeft, kTop, kHeight - kBottom,
                     kWidth - kRight);
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">step</text>", kWidth - kRight, kHeight - 5);
  for (const Drawn& d : drawn) svg += curve(d, x, y);

  std::string caption = html(chart.title);
  if (!chart.unit.empty()) caption += fmt::format(" <span>{}</span>", html(chart.unit));
  if (log) caption += " <span>logarithmic</span>";
  return fmt::format("<figure class=\"chart\"><figcaption>{}</figcaption>{}</svg></figure>\n", caption, svg);
}

}  // namespace lockstep::report
