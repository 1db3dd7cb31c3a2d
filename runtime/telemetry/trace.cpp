// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/trace.h"
#include "runtime/files/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

namespace lockstep {

int64_t Trace::now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void Trace::start() {
  zero_ns_ = end_ns_ = now_ns();
  recording_ = steps_ > 0;
}

void Trace::end_step() {
  end_ns_ = now_ns();
  if (++seen_ == steps_) recording_ = false;
}

void Trace::add(Lane lane, const Work& work, int64_t begin_ns, int64_t end_ns, int64_t bytes) {
  lanes_[static_cast<size_t>(lane)].push_back({&work, begin_ns, end_ns, bytes ? bytes : work.bytes});
}

std::string Trace::events(int rank) const {
  using nlohmann::json;
  std::string text;
  const auto append = [&](const json& event) { text += (text.empty() ? "" : ",\n") + json_text(event); };
  append({{"ph", "M"},
          {"name", "process_name"},
          {"pid", rank},
          {"args", {{"name", fmt::format("rank {}", rank)}}}});
  for (int lane : {0, 1}) {
    append({{"ph", "M"},
            {"name", "thread_name"},
            {"pid", rank},
            {"tid", lane},
            {"args", {{"name", lane == 0 ? "compute" : "allreduce"}}}});
    for (const Span& s : lanes_[lane]) {
      const double seconds = static_cast<double>(s.end_ns - s.begin_ns) * 1e-9;
      json arguments = json::object();
      if (!s.work->kernel.empty()) arguments["kernel"] = s.work->kernel;
      if (s.work->flops > 0 && seconds > 0)
        arguments["GFLOP/s"] = static_cast<double>(s.work->flops) / seconds * 1e-9;
      if (s.bytes > 0) arguments["bytes"] = s.bytes;
      append({{"ph", "X"},
              {"name", s.work->name},
              {"cat", s.work->category},
              {"pid", rank},
              {"tid", lane},
              {"ts", static_cast<double>(s.begin_ns - zero_ns_) * 1e-3},
              {"dur", static_cast<double>(s.end_ns - s.begin_ns) * 1e-3},
              {"args", arguments}});
    }
  }
  return text;
}

std::string Trace::trace_file(const std::vector<std::string>& events_of_ranks) {
  return fmt::format("{{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{}\n]}}\n",
                     fmt::join(events_of_ranks, ",\n"));
}

std::vector<Trace::Row> Trace::rows() const {
  // Plans for other batch sizes repeat the same work under other addresses.
  std::map<std::pair<std::string, std::string>, Row> by_name;
  for (const Span& s : lanes_[0]) {
    Row& row = by_name[{s.work->name, s.work->category}];
    row.work = s.work;
    row.seconds += static_cast<double>(s.end_ns - s.begin_ns) * 1e-9;
    ++row.calls;
  }
  std::vector<Row> rows;
  for (const auto& [name, row] : by_name) rows.push_back(row);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  return rows;
}

double Trace::step_seconds() const {
  return seen_ == 0 ? 0 : static_cast<double>(end_ns_ - zero_ns_) * 1e-9 / static_cast<double>(seen_);
}

std::vector<double> Trace::seconds_of(const Work& work) const {
  std::vector<double> seconds;
  for (const Span& s : lanes_[0])
    if (s.work == &work) seconds.push_back(static_cast<double>(s.end_ns - s.begin_ns) * 1e-9);
  return seconds;
}

std::string profile_table(const Trace& trace, double peak_gflops) {
  constexpr size_t kRows = 10;
  const double step = trace.step_seconds(), steps = static_cast<double>(trace.steps());
  if (step <= 0) return "no step was profiled\n";
  std::string text = fmt::format("Mean of {} steps of {:.3f} ms, rank 0", trace.steps(), step * 1e3);
  if (peak_gflops > 0) text += fmt::format("; peak: {:.0f} GFLOP/s in float32", peak_gflops);
  text += fmt::format("\n{:>10} {:>7} {:>9} {:>7}  {}\n", "ms/step", "share", "GFLOP/s", "peak", "what");
  double shown = 0, all = 0;
  const auto rows = trace.rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    const double seconds = rows[i].seconds / steps;
    all += seconds;
    if (i >= kRows) continue;
    shown += seconds;
    const double rate = static_cast<double>(rows[i].work->flops * rows[i].calls) / rows[i].seconds * 1e-9;
    const bool works = rows[i].work->flops > 0;
    text += fmt::format("{:>10.3f} {:>6.1f}% {:>9} {:>7}  {}, {}{}\n", seconds * 1e3, 100 * seconds / step,
                        works ? fmt::format("{:.1f}", rate) : "",
                        works && peak_gflops > 0 ? fmt::format("{:.0f}%", 100 * rate / peak_gflops) : "",
                        rows[i].work->name, rows[i].work->category,
                        rows[i].work->kernel.empty() ? "" : ", kernel " + rows[i].work->kernel);
  }
  if (rows.size() > kRows)
    text += fmt::format("{:>10.3f} {:>6.1f}% {:>26} other kinds of work\n", (all - shown) * 1e3,
                        100 * (all - shown) / step, rows.size() - kRows);
  return text + fmt::format("{:>10.3f} {:>6.1f}% {:>26}\n", (step - all) * 1e3, 100 * (step - all) / step,
                            "between them");
}

}  // namespace lockstep
