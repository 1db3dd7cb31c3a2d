// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/progress_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

namespace lockstep {
namespace {

constexpr int kMaxBar = 40, kMinBar = 8;
constexpr const char *kDim = "\x1b[2m", *kBold = "\x1b[1m", *kGreen = "\x1b[32m", *kCyan = "\x1b[36m",
                     *kReset = "\x1b[0m";

// Columns of UTF-8 text of the characters used here and of paths: one a code point.
int columns_of(std::string_view text) {
  return static_cast<int>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

class Line {
 public:
  explicit Line(bool color) : color_(color) {}
  Line& add(std::string_view text, const char* color = nullptr) {
    columns_ += columns_of(text);
    if (color_ && color != nullptr)
      text_ += fmt::format("{}{}{}", color, text, kReset);
    else
      text_ += text;
    return *this;
  }
  Line& add(const Line& other) {
    text_ += other.text_;
    columns_ += other.columns_;
    return *this;
  }
  int columns() const { return columns_; }
  StyledText take() { return {std::move(text_), columns_}; }

 private:
  bool color_;
  std::string text_;
  int columns_ = 0;
};

// Pieces in the order shown; those of the lowest rank stay longest.
struct Piece {
  Line line;
  int rank;
};

// Which pieces fit into `room` columns.
std::vector<const Line*> choose(const std::vector<Piece>& pieces, int room) {
  std::vector<const Piece*> by_rank;
  for (const Piece& p : pieces) by_rank.push_back(&p);
  std::stable_sort(by_rank.begin(), by_rank.end(), [](auto* a, auto* b) { return a->rank < b->rank; });
  std::vector<const Piece*> fit;
  for (const Piece* p : by_rank) {
    if (p->line.columns() > room) break;
    room -= p->line.columns();
    fit.push_back(p);
  }
  std::vector<const Line*> shown;
  for (const Piece& p : pieces)
    if (std::find(fit.begin(), fit.end(), &p) != fit.end()) shown.push_back(&p.line);
  return shown;
}

std::string loss_text(double loss) {
  if (!std::isfinite(loss)) return fmt::format("{:>6}", loss);
  const double size = std::fabs(loss);
  if (size != 0 && size < 1e-3) return fmt::format("{:.1e}", loss);
  return size < 10000 ? fmt::format("{:.4f}", loss) : fmt::format("{:.4g}", loss);
}
std::string percent_text(double share) { return fmt::format("{:5.2f}%", share * 100); }
std::string epoch_text(const ProgressState& s) {
  const std::string of = std::to_string(s.epochs);
  return fmt::format("Epoch {:>{}}/{}", s.epoch, of.size(), of);
}
double share_done(const ProgressState& s) {
  return s.steps_per_epoch <= 0
             ? 1.0
             : std::clamp(static_cast<double>(s.step) / static_cast<double>(s.steps_per_epoch), 0.0, 1.0);
}

std::string repeat(std::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

Line bar(double share, int width, const ProgressStyle& style) {
  Line line(style.color);
  if (!style.unicode) {
    const int full = static_cast<int>(share * (width - 2));
    return line.add("[").add(repeat("#", full), kCyan).add(repeat(".", width - 2 - full), kDim).add("]");
  }
  const int halves = static_cast<int>(share * 2 * width);
  const int full = halves / 2;
  line.add(repeat("━", full) + (halves % 2 != 0 ? "╸" : ""), kCyan);
  // Without colors the rest must differ in shape.
  return line.add(repeat(style.color ? "━" : "─", width - full - halves % 2), kDim);
}

Line labelled(const ProgressStyle& style, std::string_view gap, std::string_view label,
              std::string_view value) {
  return Line(style.color).add(gap).add(label, kDim).add(" ").add(value);
}

Line rate_piece(const ProgressStyle& style, double rate) {
  return Line(style.color).add("  ").add(rate_text(rate)).add(" samples/s", kDim);
}

// A line longer than the terminal would wrap: cut (only the lead of a very narrow one can be).
StyledText within(Line line, const std::string& lead, int room) {
  if (line.columns() <= room) return line.take();
  const std::string cut = lead.substr(0, static_cast<size_t>(std::max(room, 0)));
  return {cut, columns_of(cut)};
}

// Nothing where there is no accuracy.
Line accuracy_piece(const ProgressStyle& style, const std::optional<double>& accuracy) {
  return accuracy ? labelled(style, "  ", "acc", percent_text(*accuracy)) : Line(style.color);
}
std::string plain_accuracy(const std::optional<double>& accuracy) {
  return accuracy ? fmt::format(" accuracy {:.2f}%", *accuracy * 100) : "";
}

using Rows = std::vector<std::pair<std::string, std::string>>;
Rows summary_rows(const ProgressSummary& s) {
  Rows rows;
  if (s.test_accuracy) rows.emplace_back("Test accuracy", fmt::format("{:.2f}%", *s.test_accuracy * 100));
  if (s.test_loss) rows.emplace_back("Test loss", loss_text(*s.test_loss));
  if (!s.stopped_early.empty()) rows.emplace_back("Stopped early", s.stopped_early);
  rows.emplace_back("Training time", duration_text(s.training_seconds));
  rows.emplace_back("Throughput", rate_text(s.samples_per_second) + " samples/s");
  rows.emplace_back("Run folder", s.run_folder);
  return rows;
}
constexpr int kLabelColumns = 13;

}  // namespace

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-:--";
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string rate_text(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second >= 999'950) return fmt::format("{:.2f}M", per_second / 1e6);
  if (per_second >= 9'999.5) return fmt::format("{:.1f}k", per_second / 1e3);
  if (per_second >= 999.5) {
    const int64_t whole = std::llround(per_second);
    return fmt::format("{},{:03}", whole / 1000, whole % 1000);
  }
  return per_second >= 99.95 ? fmt::format("{:.0f}", per_second) : fmt::format("{:.1f}", per_second);
}

StyledText live_line(const ProgressState& s, const ProgressStyle& style) {
  const int room = style.width - 1;
  // Whole seconds in a line that is redrawn, so that it does not flicker.
  std::string eta = "-:--";
  if (s.seconds_left) {
    const int64_t left = std::llround(std::max(*s.seconds_left, 0.0));
    eta = left < 60 ? fmt::format("0:{:02}", left) : duration_text(static_cast<double>(left));
  }
  const std::string lead_text = "  " + epoch_text(s);  // below the finished epochs' check marks
  const Line lead = Line(style.color).add(lead_text, kBold);
  std::vector<Piece> pieces{
      {Line(style.color).add(fmt::format(" {:3.0f}%", std::floor(share_done(s) * 100))), 4},
      {labelled(style, "  ", "loss", loss_text(s.loss)), 0},
      {accuracy_piece(style, s.accuracy), 1},
      {rate_piece(style, s.samples_per_second), 3},
      {labelled(style, "  ", "ETA", eta), 2},
  };
  const bool with_bar = room >= lead.columns() + 2 + kMinBar;
  const auto shown = choose(pieces, room - lead.columns() - (with_bar ? 2 + kMinBar : 0));
  int rest = room - lead.columns();
  for (const Line* l : shown) rest -= l->columns();
  Line line = lead;
  if (with_bar) line.add("  ").add(bar(share_done(s), std::min(rest - 2, kMaxBar), style));
  for (const Line* l : shown) line.add(*l);
  return within(std::move(line), lead_text, room);
}

StyledText epoch_line(const ProgressState& s, const MetricsLine& training, const MetricsLine* validation,
                      double seconds, const ProgressStyle& style) {
  const std::string lead_text = epoch_text(s);
  Line line = Line(style.color).add(style.unicode ? "✓ " : "* ", kGreen).add(lead_text, kBold);
  std::vector<Piece> pieces{
      {labelled(style, "  ", "loss", loss_text(training.loss)), 2},
      {accuracy_piece(style, training.accuracy), 3},
  };
  if (validation != nullptr) {
    pieces.push_back({labelled(style, "   ", "validation loss", loss_text(validation->loss)), 1});
    pieces.push_back({accuracy_piece(style, validation->accuracy), 0});
  }
  pieces.push_back({Line(style.color).add("   ").add(duration_text(seconds)), 4});
  if (training.samples_per_second) pieces.push_back({rate_piece(style, *training.samples_per_second), 5});
  const int room = style.width - 1;
  // Without its loss, the validation's accuracy would be taken for the training's: both or none.
  const auto shown = choose(pieces, room - line.columns());
  if (validation != nullptr && shown.size() == 1) return within(std::move(line), lead_text, room);
  for (const Line* l : shown) line.add(*l);
  return within(std::move(line), lead_text, room);
}

std::string closing_table(const ProgressSummary& summary, const ProgressStyle& style) {
  const Rows rows = summary_rows(summary);
  int value_columns = 0;
  for (const auto& [label, value] : rows) value_columns = std::max(value_columns, columns_of(value));
  const int inner = 2 + kLabelColumns + 3 + value_columns + 2;
  const bool framed = inner + 2 < style.width;
  const auto frame = [&](const char* unicode, const char* ascii) { return style.unicode ? unicode : ascii; };
  const auto edge = [&](const char* left, const char* right) {
    Line line(style.color);
    line.add(frame(left, "+") + repeat(frame("─", "-"), inner) + frame(right, "+"), kDim);
    return line.take().text + "\n";
  };
  std::string out = framed ? edge("╭", "╮") : "";
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& [label, value] = rows[i];
    Line line(style.color);
    if (framed) line.add(frame("│", "|"), kDim);
    const bool headline = i == 0 && summary.test_accuracy;
    line.add(fmt::format("  {:<{}}   ", label, kLabelColumns), kDim)
        .add(value, headline ? "\x1b[1;32m" : nullptr)
        .add(framed ? repeat(" ", value_columns - columns_of(value) + 2) : "");
    if (framed) line.add(frame("│", "|"), kDim);
    out += line.take().text + "\n";
  }
  return framed ? out + edge("╰", "╯") : out;
}

std::string plain_live_line(const ProgressState& s) {
  return fmt::format("epoch {}/{} step {}/{}: loss {}{}, {} samples/s, {} left", s.epoch, s.epochs, s.step,
                     s.steps_per_epoch, loss_text(s.loss), plain_accuracy(s.accuracy),
                     rate_text(s.samples_per_second), s.seconds_left ? duration_text(*s.seconds_left) : "?");
}

std::string plain_epoch_line(const ProgressState& s, const MetricsLine& training,
                             const MetricsLine* validation, double seconds) {
  std::string line = fmt::format("epoch {}/{} done: training loss {}{}", s.epoch, s.epochs,
                                 loss_text(training.loss), plain_accuracy(training.accuracy));
  if (validation != nullptr)
    line += fmt::format(", validation loss {}{}", loss_text(validation->loss),
                        plain_accuracy(validation->accuracy));
  line += ", " + duration_text(seconds);
  if (training.samples_per_second)
    line += fmt::format(", {} samples/s", rate_text(*training.samples_per_second));
  return line;
}

std::string plain_closing(const ProgressSummary& summary) {
  std::string out;
  for (const auto& [label, value] : summary_rows(summary))
    out += fmt::format("{:<{}}  {}\n", label, kLabelColumns, value);
  return out;
}

}  // namespace lockstep
