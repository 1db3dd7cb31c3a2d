// SPDX-License-Identifier: Apache-2.0
#include "launch/report/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "launch/report/chart.h"
#include "launch/report/text.h"
#include "launch/serve/body.h"
#include "runtime/telemetry/median.h"

namespace lockstep::report {
namespace {

using Runs = std::span<const RunRecord>;

// The palette's colours keep 4.5:1 against the page, light and dark.
constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d5dae0; --shade: 70, 140, 205;
  --c0: #0b62a8; --c1: #b54708; --c2: #00745a; --c3: #9c3d75; --c4: #7d5d00; --c5: #006f82; --c6: #5b4bc4; --c7: #5a5a5a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181d; --text: #e4e8ec; --quiet: #9aa5b1; --line: #323a44; --shade: 40, 110, 180;
    --c0: #6cb8ff; --c1: #ff9a57; --c2: #3fd0a4; --c3: #f09acb; --c4: #e8c04a; --c5: #4fd0e0; --c6: #b3a6ff; --c7: #c0c0c0; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page); color: var(--text); }
h1 { font-size: 1.35rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .6rem; }
h3 { font-size: 1rem; font-weight: 600; margin: .8rem 0 .3rem; }
p { margin: .4rem 0; }
.quiet, figcaption span { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom-width: 2px; white-space: nowrap; }
tbody th { font-weight: 400; color: var(--quiet); min-width: 8.6rem; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
td.long { overflow-wrap: anywhere; min-width: 5.5rem; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .4em; background: currentColor; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; }
.chart figcaption { font-weight: 600; } .chart figcaption span { font-weight: 400; }
.chart svg { width: 100%; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--quiet); }
svg path { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.grid { stroke: var(--line); stroke-width: .7; } .axis { stroke: var(--quiet); stroke-width: 1; }
.line { stroke: currentColor; stroke-width: 1.8; } .dashed { stroke: currentColor; stroke-width: 1.8; stroke-dasharray: 2 5; }
svg path.band { fill: currentColor; fill-opacity: .16; } .dot { fill: currentColor; stroke: var(--page); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-bottom: .6rem; }
.legend svg { width: 34px; height: 12px; vertical-align: middle; margin-right: .4rem; }
.failed { border-left: 4px solid var(--c1); padding: .3rem .8rem; margin: .8rem 0; overflow-wrap: anywhere; }
.grids { display: flex; flex-wrap: wrap; gap: .8rem; }
.grids img { image-rendering: pixelated; width: min(100%, 16rem); height: auto; border: 1px solid var(--line); border-radius: .3rem; display: block; }
.grids figcaption { font-size: .85rem; color: var(--quiet); }
.matrices { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; }
.matrices > div { min-width: 0; max-width: 100%; }
.matrix td, .matrix th { padding: .15rem .3rem; text-align: right; font-size: .8rem; border: 0; color: inherit; }
.matrix thead th { white-space: nowrap; } .matrix tbody th { color: inherit; min-width: 0; }
.matrix td { min-width: 1.4rem; } .matrix td.zero { color: var(--quiet); } .matrix td.share { color: var(--quiet); padding-left: .5rem; white-space: nowrap; }
@media (max-width: 30rem) { .matrix td, .matrix th { padding: .1rem .12rem; font-size: .7rem; min-width: 0; } }
details { margin: .6rem 0; } summary { cursor: pointer; }
:focus-visible { outline: 3px solid var(--c0); outline-offset: 2px; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); } .c7 { color: var(--c7); }
)css";

// Names where these differ, else the folders as they were given.
std::vector<std::string> titles_of(Runs runs) {
  std::vector<std::string> titles;
  std::set<std::string> seen;
  for (const RunRecord& run : runs) titles.push_back(run.name), seen.insert(run.name);
  if (seen.size() < runs.size())
    for (size_t i = 0; i < runs.size(); ++i) titles[i] = runs[i].folder;
  return titles;
}

// A job's key, which may be broken behind its dots and underscores.
std::string breakable(const std::string& key) {
  std::string out;
  for (const char c : key) {
    out += c;
    if (c == '.' || c == '_') out += "<wbr>";
  }
  return out;
}

// "2026-11-29 10:45:37Z", which may be broken between date and time.
std::string readable(std::string time) {
  std::replace(time.begin(), time.end(), 'T', ' ');
  return time;
}

std::string loss_text(double loss) {
  return std::fabs(loss) < 1e6 ? fmt::format("{:.4f}", loss) : short_number(loss);
}

// Older plans say less.
std::string unless_zero(int64_t value, std::string text) { return value == 0 ? "" : std::move(text); }

class Page {
 public:
  explicit Page(Runs runs) : runs_(runs), titles_(titles_of(runs)) {}

  std::string text() const {
    std::string names;
    for (const std::string& t : titles_) names += (names.empty() ? "" : ", ") + html(t);
    return fmt::format(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
        "'unsafe-inline'\">\n"
        "<title>Lockstep: {0}</title>\n<style>{1}</style>\n<h1>{0}</h1>\n{2}{3}{4}{5}{6}{7}</html>\n",
        names, kStyle, outcome(), curves(), samples(), confusion(), job(), plan());
  }

 private:
  // A row whose cells are made of each run; left out where all are empty.
  struct Row {
    std::string name;
    std::vector<std::string> cells;
  };
  using Cell = std::function<std::string(const RunRecord&)>;
  Row row(const std::string& name, const Cell& cell) const {
    Row r{name, {}};
    for (const RunRecord& run : runs_) r.cells.push_back(cell(run));
    return r;
  }

  std::string table(const std::vector<Row>& rows) const {
    std::string out = "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><td></td>";
    for (size_t i = 0; i < runs_.size(); ++i)
      out += fmt::format("<th scope=\"col\"><span class=\"swatch c{}\"></span>{}</th>", i, html(titles_[i]));
    out += "</tr></thead><tbody>\n";
    for (const Row& r : rows) {
      if (std::all_of(r.cells.begin(), r.cells.end(), [](const std::string& c) { return c.empty(); }))
        continue;
      out += fmt::format("<tr><th scope=\"row\">{}</th>", breakable(html(r.name)));
      for (const std::string& c : r.cells) out += fmt::format("<td class=\"long\">{}</td>", html(c));
      out += "</tr>\n";
    }
    return out + "</tbody></table></div>\n";
  }

  static const MetricsLine* last_of(const RunRecord& run, std::string_view split) {
    const auto found = std::find_if(run.lines.rbegin(), run.lines.rend(),
                                    [&](const MetricsLine& l) { return l.split == split; });
    return found == run.lines.rend() ? nullptr : &*found;
  }

  using Field = std::optional<double> MetricsLine::*;
  // Of the training lines, from the second on where there are several: the first has the start in it.
  static std::optional<double> typical(const RunRecord& run, Field field) {
    std::vector<double> values;
    for (const MetricsLine& l : run.lines)
      if (const auto& v = l.*field; v && std::isfinite(*v)) values.push_back(*v);
    if (values.size() > 1) values.erase(values.begin());
    return values.empty() ? std::nullopt : std::optional(median(values));
  }

  std::string outcome() const {
    std::string out;
    for (size_t i = 0; i < runs_.size(); ++i) {
      const auto& s = runs_[i].status;
      if (!s || s->cause.empty()) continue;
      out += fmt::format("<div class=\"failed\"><p><b>{}</b> {}, exit code {}", html(titles_[i]),
                         html(s->state), s->code);
      if (s->rank >= 0) out += fmt::format(", rank {}", s->rank);
      if (!s->op.empty()) out += fmt::format(", op {}", html(s->op));
      out += fmt::format(": {} <span class=\"quiet\">{}</span></p>", html(s->cause), html(s->error_id));
      if (!s->hint.empty()) out += fmt::format("<p>{}</p>", html(s->hint));
      out += "</div>\n";
    }
    const auto of_status = [](auto&& text) {
      return [text](const RunRecord& run) { return run.status ? text(*run.status) : std::string(); };
    };
    std::vector<Row> rows = {
        row("state", of_status([](const Status& s) { return s.state; })),
        row("steps", of_status([](const Status& s) {
              return s.steps > 0 ? fmt::format("{} of {}", s.step, s.steps) : std::to_string(s.step);
            })),
        row("images skipped", of_status([](const Status& s) {
              return s.skipped_images > 0 ? std::to_string(s.skipped_images) : std::string();
            })),
        row("ended", of_status([](const Status& s) {
              return s.state == "running" ? std::string() : readable(s.time);
            })),
        row("seconds", [](const RunRecord& run) {
          return run.lines.empty() ? std::string() : fmt::format("{:.1f}", run.lines.back().seconds);
        })};
    for (const char* split : {"test", "validation", "training"}) {
      rows.push_back(row(fmt::format("{} accuracy", split), [&](const RunRecord& run) {
        const MetricsLine* l = last_of(run, split);
        return l && l->accuracy ? fmt::format("{:.2f} %", 100 * *l->accuracy) : std::string();
      }));
      rows.push_back(row(fmt::format("{} loss", split), [&](const RunRecord& run) {
        const MetricsLine* l = last_of(run, split);
        return l ? loss_text(l->loss) : std::string();
      }));
    }
    const auto typical_row = [&](const char* name, Field field, const char* unit) {
      rows.push_back(row(name, [&](const RunRecord& run) {
        const auto v = typical(run, field);
        return v ? short_number(std::round(*v * 100) / 100) + unit : std::string();
      }));
    };
    typical_row("samples/s, median", &MetricsLine::samples_per_second, "");
    typical_row("waiting for data, median", &MetricsLine::data_wait_percent, " %");
    typical_row("allreduce not hidden, median", &MetricsLine::allreduce_exposed_percent, " %");
    return out + table(rows);
  }

  // A curve for each run that has such values.
  std::vector<Series> series(std::string_view split, Series::Draw draw,
                             const std::function<std::optional<double>(const MetricsLine&)>& value) const {
    std::vector<Series> all;
    for (size_t i = 0; i < runs_.size(); ++i) {
      Series s{titles_[i] + ", " + std::string(split), static_cast<int>(i), draw};
      for (const MetricsLine& l : runs_[i].lines) {
        if (l.split != split) continue;
        if (const auto v = value(l)) s.x.push_back(static_cast<double>(l.step)), s.y.push_back(*v);
      }
      if (!s.x.empty()) all.push_back(std::move(s));
    }
    return all;
  }

  Chart evaluated(const std::string& title, const std::string& unit, bool may_be_log,
                  const std::function<std::optional<double>(const MetricsLine&)>& value) const {
    Chart c{title, unit, false, may_be_log};
    for (const auto& [split, draw] : {std::pair{"training", Series::Draw::line},
                                      {"validation", Series::Draw::dashed},
                                      {"test", Series::Draw::dots}})
      for (Series& s : series(split, draw, value)) c.series.push_back(std::move(s));
    return c;
  }

  std::string legend() const {
    std::string out = "<p class=\"legend\">";
    for (size_t i = 0; i < runs_.size(); ++i)
      out += fmt::format("<span><span class=\"swatch c{}\"></span>{}</span>", i, html(titles_[i]));
    const auto sample = [&](const char* split, const char* drawing) {
      if (std::any_of(runs_.begin(), runs_.end(),
                      [&](const RunRecord& r) { return last_of(r, split) != nullptr; }))
        out += fmt::format("<span><svg viewBox=\"0 0 34 12\" aria-hidden=\"true\">{}</svg>{}</span>", drawing,
                           split);
    };
    sample("training", "<path class=\"line\" d=\"M2 6H32\"/>");
    sample("validation",
           "<path class=\"dashed\" d=\"M2 6H32\"/><circle class=\"dot\" cx=\"17\" cy=\"6\" r=\"3\"/>");
    sample("test", "<circle class=\"dot\" cx=\"17\" cy=\"6\" r=\"5\"/>");
    return out + "</p>\n";
  }

  std::string curves() const {
    std::string all;
    all += figure(evaluated("Loss", "", true, [](const MetricsLine& l) { return std::optional(l.loss); }));
    all += figure(evaluated("Accuracy", "%", false, [](const MetricsLine& l) -> std::optional<double> {
      return l.accuracy ? std::optional(100 * *l.accuracy) : std::nullopt;
    }));
    const auto of_training = [&](const char* title, const char* unit, Field field) {
      all += figure(
          Chart{title, unit, true, false,
                series("training", Series::Draw::line, [&](const MetricsLine& l) { return l.*field; })});
    };
    of_training("Rate", "samples/s", &MetricsLine::samples_per_second);
    of_training("Waiting for data", "% of the time", &MetricsLine::data_wait_percent);
    of_training("Allreduce not hidden by backward", "% of the time", &MetricsLine::allreduce_exposed_percent);
    of_training("Learning rate", "", &MetricsLine::lr);
    if (all.empty()) return "<p class=\"quiet\">No metrics were recorded.</p>\n";
    return "<h2>Curves</h2>\n" + legend() + "<div class=\"charts\">\n" + all + "</div>\n";
  }

  std::string samples() const {
    std::string out;
    for (size_t i = 0; i < runs_.size(); ++i) {
      const RunRecord& run = runs_[i];
      if (run.samples.empty()) continue;
      out += fmt::format("<h3><span class=\"swatch c{}\"></span>{}", i, html(titles_[i]));
      if (run.samples_there > run.samples.size())
        out += fmt::format(" <span class=\"quiet\">{} of {}</span>", run.samples.size(), run.samples_there);
      out += "</h3>\n<div class=\"grids\">\n";
      for (const SampleGrid& g : run.samples)
        out += fmt::format(
            "<figure><img alt=\"{0}\" width=\"{1}\" height=\"{2}\" src=\"data:image/png;base64,{3}\">"
            "<figcaption>{0}</figcaption></figure>\n",
            html(g.file), g.width, g.height, serve::base64(g.png));
      out += "</div>\n";
    }
    return out.empty() ? "" : "<h2>Samples</h2>\n" + out;
  }

  std::string confusion() const {
    std::string out;
    for (size_t i = 0; i < runs_.size(); ++i) {
      const MetricsLine* line = last_of(runs_[i], "test");
      if (!line || line->confusion.empty()) line = last_of(runs_[i], "validation");
      if (line && !line->confusion.empty()) out += matrix(i, *line);
    }
    if (out.empty()) return "";
    return "<h2>Confusion</h2>\n<p class=\"quiet\">A row is a class, a column what it was taken for; the "
           "last column is the share "
           "that was right. Shades are shares of the row.</p>\n<div class=\"matrices\">\n" +
           out + "</div>\n";
  }

  std::string class_name(const RunRecord& run, size_t number) const {
    return html(run.model ? run.model->class_text(static_cast<int64_t>(number)) : std::to_string(number));
  }

  std::string matrix(size_t i, const MetricsLine& line) const {
    const RunRecord& run = runs_[i];
    const size_t classes = line.confusion.size();
    std::string out = fmt::format(
        "<div><h3><span class=\"swatch c{}\"></span>{} <span class=\"quiet\">{}, step {}</span></h3>"
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"matrix\"><thead><tr><td></td>",
        i, html(titles_[i]), html(line.split), line.step);
    for (size_t c = 0; c < classes; ++c) out += fmt::format("<th scope=\"col\">{}</th>", class_name(run, c));
    out += "<td></td></tr></thead><tbody>\n";
    for (size_t r = 0; r < classes; ++r) {
      const auto& counts = line.confusion[r];
      double all = 0;
      for (const int64_t n : counts) all += static_cast<double>(n);
      out += fmt::format("<tr><th scope=\"row\">{}</th>", class_name(run, r));
      for (const int64_t n : counts) {
        // The root makes the few that went wrong visible.
        const double shade = all > 0 ? 0.75 * std::sqrt(static_cast<double>(n) / all) : 0;
        out += n == 0 ? std::string("<td class=\"zero\">0</td>")
                      : fmt::format("<td style=\"background:rgba(var(--shade),{:.2f})\">{}</td>", shade, n);
      }
      out += all > 0 ? fmt::format("<td class=\"share\">{:.1f} %</td></tr>\n",
                                   100 * static_cast<double>(counts[r]) / all)
                     : "<td></td></tr>\n";
    }
    return out + "</tbody></table></div></div>\n";
  }

  // The job's keys with what model.json adds: the data that were really there, and the program.
  static KeyValues described(const RunRecord& run) {
    KeyValues all = run.job;
    if (!run.model) return all;
    all.emplace_back("program", run.model->program);
    for (const auto& [split, hash] : run.model->data)
      all.emplace_back("SHA-256 of " + split + " data", hash.substr(0, 16));
    return all;
  }

  std::string job() const {
    std::vector<Row> rows;  // in the order in which keys first appear
    for (size_t i = 0; i < runs_.size(); ++i)
      for (const auto& [key, value] : described(runs_[i])) {
        auto r = std::find_if(rows.begin(), rows.end(), [&key = key](const Row& x) { return x.name == key; });
        if (r == rows.end()) r = rows.insert(r, {key, std::vector<std::string>(runs_.size())});
        r->cells[i] = value;
      }
    std::vector<Row> differ;
    std::copy_if(rows.begin(), rows.end(), std::back_inserter(differ), [](const Row& r) {
      return std::any_of(r.cells.begin(), r.cells.end(),
                         [&](const std::string& c) { return c != r.cells[0]; });
    });
    std::string out = "<h2>Job</h2>\n";
    if (runs_.size() > 1)
      out += differ.empty() ? "<p>The runs have the same job.</p>\n"
                            : "<p>What differs between the runs:</p>\n" + table(differ);
    return out + "<details><summary>All keys</summary>\n" + table(rows) + "</details>\n";
  }

  std::string plan() const {
    if (std::none_of(runs_.begin(), runs_.end(), [](const RunRecord& r) { return r.plan.has_value(); }))
      return "";
    const auto of_plan = [](auto&& text) {
      return [text](const RunRecord& run) { return run.plan ? text(*run.plan) : std::string(); };
    };
    std::string out =
        "<h2>Plan</h2>\n" +
        table({row("ranks", of_plan([](const PlanSummary& p) {
                     return unless_zero(p.ranks, std::to_string(p.ranks));
                   })),
               row("samples a rank and step", of_plan([](const PlanSummary& p) {
                     return unless_zero(p.batch_per_rank, std::to_string(p.batch_per_rank));
                   })),
               row("FLOP of a rank's step", of_plan([](const PlanSummary& p) {
                     return unless_zero(p.flops, short_number(static_cast<double>(p.flops)));
                   })),
               row("memory of tensors, MB", of_plan([](const PlanSummary& p) {
                     return unless_zero(p.peak_bytes,
                                        fmt::format("{:.1f}", static_cast<double>(p.peak_bytes) / 1e6));
                   })),
               row("of it activations, MB", of_plan([](const PlanSummary& p) {
                     return unless_zero(p.activation_bytes,
                                        fmt::format("{:.1f}", static_cast<double>(p.activation_bytes) / 1e6));
                   }))});
    for (size_t i = 0; i < runs_.size(); ++i)
      if (runs_[i].plan) out += ops(i, *runs_[i].plan);
    return out;
  }

  std::string ops(size_t i, const PlanSummary& plan) const {
    std::string out = fmt::format(
        "<details><summary>Ops of {}</summary>\n<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th "
        "scope=\"col\">op</th>"
        "<th scope=\"col\" class=\"number\">nodes</th><th scope=\"col\" class=\"number\">FLOP</th><th "
        "scope=\"col\">kernels</th>"
        "</tr></thead><tbody>\n",
        html(titles_[i]));
    for (const PlanSummary::Op& op : plan.ops)
      out += fmt::format(
          "<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td "
          "class=\"number\">{}</td><td>{}</td></tr>\n",
          html(op.name), op.nodes, short_number(static_cast<double>(op.flops)), html(op.kernels));
    return out + "</tbody></table></div></details>\n";
  }

  Runs runs_;
  std::vector<std::string> titles_;
};

}  // namespace

std::string page(Runs runs) { return Page(runs).text(); }

}  // namespace lockstep::report
