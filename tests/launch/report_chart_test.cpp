// SPDX-License-Identifier: Apache-2.0
// Curves of a report: ticks, thinning, gaps, where points lie.
#include "launch/report/chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <regex>

#include "launch/report/text.h"

namespace lockstep::report::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
using Values = std::vector<double>;

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(ReportText, EscapesMarkupControlsAndBrokenUtf8) {
  EXPECT_EQ(html("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(html(std::string("a\0b\x1b\n\xff", 6)), "a\uFFFDb\uFFFD\n\uFFFD");
  EXPECT_EQ(html("größer"), "größer");
}

TEST(ReportText, NumbersAreShort) {
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(-0.0), "0");
  EXPECT_EQ(short_number(1e-5), "1e-05");
  EXPECT_EQ(short_number(9999), "9999");
  EXPECT_EQ(short_number(10000), "10k");
  EXPECT_EQ(short_number(93512), "93.51k");
  EXPECT_EQ(short_number(999900), "999.9k") << "not 1000k";
  EXPECT_EQ(short_number(-2.5e6), "-2.5M");
  EXPECT_EQ(short_number(3e14), "300T");
  EXPECT_EQ(short_number(3e15), "3e+15");
}

TEST(ReportChart, LinearTicksAreRoundAndWithin) {
  EXPECT_EQ(linear_ticks(0, 1, 6), (Values{0, 0.2, 0.4, 0.6, 0.8, 1}));
  EXPECT_EQ(linear_ticks(0.1, 0.42, 6), (Values{0.1, 0.2, 0.3, 0.4})) << "0.3 itself, not 3 * 0.1";
  EXPECT_EQ(linear_ticks(-3, 844, 6), (Values{0, 200, 400, 600, 800}));
  for (const double high : {1e-9, 0.37, 7.0, 123456.0, 1e18})
    for (int most = 2; most < 9; ++most) {
      const Values ticks = linear_ticks(0, high, most);
      EXPECT_LE(ticks.size(), static_cast<size_t>(most)) << high;
      EXPECT_GE(ticks.size(), 1u) << high;
      EXPECT_LE(ticks.back(), high * (1 + 1e-9));
    }
}

TEST(ReportChart, LogTicksAreDecadesOrFiner) {
  EXPECT_EQ(log_ticks(0.5, 2000), (Values{1, 10, 100, 1000}));
  const Values far = log_ticks(0.5, 2e26);
  ASSERT_EQ(far.size(), 7u);
  EXPECT_EQ(far[1] / far[0], 1e4);
  const Values fine = log_ticks(0.06, 2.4);
  ASSERT_EQ(fine.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(fine[i], (Values{0.1, 0.2, 0.5, 1, 2})[i], 1e-15);
}

TEST(ReportChart, NeighboursBecomeOnePointWithTheirRange) {
  const Thinned t = thinned({1, 2, 3, 4, 5}, {2, 4, kNaN, kNaN, 7}, 3);
  EXPECT_EQ(t.x, (Values{2, 4, 5}));
  EXPECT_EQ(t.mean[0], 3);
  EXPECT_EQ(t.least[0], 2);
  EXPECT_EQ(t.greatest[0], 4);
  EXPECT_TRUE(std::isnan(t.mean[1]));
  EXPECT_EQ(t.mean[2], 7);
  EXPECT_EQ(thinned({1, 2}, {5, 6}, 2).mean, (Values{5, 6})) << "few are left alone";
  EXPECT_TRUE(thinned({}, {}, 3).x.empty());
}

TEST(ReportChart, PointsLieWhereTheAxesSay) {
  Chart chart{"Loss", "", true, false, {{"run", 3, Series::Draw::line, {0, 50, 100}, {0, 1, 2}}}};
  const std::string svg = figure(chart);
  std::smatch path;
  ASSERT_TRUE(
      std::regex_search(svg, path,
                        std::regex("<g class=\"c3\"><title>run</title><path class=\"line\" "
                                   "d=\"M([\\d.]+) ([\\d.]+)L([\\d.]+) ([\\d.]+)L([\\d.]+) ([\\d.]+)\"")))
      << svg;
  const auto at = [&](size_t i) { return std::stod(path[i]); };
  // Printed with one digit: halves of 0.1 each.
  EXPECT_NEAR(at(3) - at(1), at(5) - at(3), 0.11);
  EXPECT_NEAR(at(2) - at(4), at(4) - at(6), 0.11);
  EXPECT_LT(at(6), at(2)) << "up is more";
  // The tick of 1 has its line at the height of the point of 1.
  std::smatch tick;
  ASSERT_TRUE(std::regex_search(svg, tick, std::regex("M52 ([\\d.]+)H466\"/><text [^>]*>1</text>"))) << svg;
  EXPECT_NEAR(std::stod(tick[1]), at(4), 0.11);
}

TEST(ReportChart, WhatIsNotFiniteIsAGap) {
  const Chart chart{
      "x", "", false, false, {{"a", 0, Series::Draw::line, {1, 2, 3, 4, 5}, {1, 2, kNaN, 3, INFINITY}}}};
  const std::string svg = figure(chart);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  const size_t line = svg.find("class=\"line\"");
  EXPECT_EQ(count(svg.substr(line, svg.find("/>", line) - line), "M"), 2u);
  EXPECT_EQ(figure({"x", "", false, false, {{"a", 0, Series::Draw::line, {1, 2}, {kNaN, kNaN}}}}), "");
  EXPECT_EQ(figure({"x"}), "");
}

TEST(ReportChart, AxesAreLogarithmicWhereValuesAreFarApart) {
  const auto logarithmic = [](const Values& y) {
    Values x(y.size());
    std::iota(x.begin(), x.end(), 0);
    return figure({"Loss", "", false, true, {{"a", 0, Series::Draw::line, x, y}}}).find("logarithmic") !=
           std::string::npos;
  };
  EXPECT_TRUE(logarithmic({2, 0.5, 0.05}));
  EXPECT_FALSE(logarithmic({2, 0.5}));
  EXPECT_FALSE(logarithmic({2, 0})) << "zero has no logarithm";
}

TEST(ReportChart, OnePointIsADotAndManyALineInABand) {
  const auto of = [](size_t n, Series::Draw draw) {
    Values x(n), y(n);
    std::iota(x.begin(), x.end(), 1);
    for (size_t i = 0; i < n; ++i) y[i] = static_cast<double>(i % 7);
    return figure({"x", "", false, false, {{"a", 0, draw, x, y}}});
  };
  EXPECT_EQ(count(of(1, Series::Draw::line), "<circle"), 1u);
  EXPECT_EQ(count(of(2, Series::Draw::line), "<circle"), 0u);
  EXPECT_EQ(count(of(5, Series::Draw::dashed), "<circle"), 5u);
  EXPECT_EQ(count(of(100, Series::Draw::dashed), "<circle"), 0u);
  EXPECT_EQ(count(of(100, Series::Draw::line), "class=\"band\""), 0u);
  const std::string many = of(100000, Series::Draw::line);
  EXPECT_EQ(count(many, "class=\"band\""), 1u);
  EXPECT_LT(many.size(), 20000u);
}

}  // namespace
}  // namespace lockstep::report::testing
