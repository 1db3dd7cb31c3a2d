// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/mpirun_noise.h"

#include <charconv>
#include <regex>
#include <utility>

namespace lockstep {
namespace {

bool is_rule(std::string_view line) {
  return line.size() > 60 && line.find_first_not_of('-') == std::string_view::npos;
}

// Of the boxes that are read. Open MPI 5's mpirun calls itself prterun.
bool is_about_ended_ranks(std::string_view first_line) {
  static const std::regex opening(
      "Primary job  terminated|MPI_ABORT was invoked|(mpirun|prterun) (noticed that process rank|"
      "detected that one or more processes|has exited due to process rank)");
  return std::regex_search(first_line.begin(), first_line.end(), opening,
                           std::regex_constants::match_continuous);
}

bool is_about_a_host(std::string_view first_line) {
  return first_line.ends_with("has lost communication with a remote daemon.");
}

bool is_about_a_connection(std::string_view first_line) {
  return first_line.starts_with("WARNING: Open MPI failed to TCP connect");
}

// Open MPI 5 says so of a launcher that Open MPI 4 has, and goes on.
bool is_about_a_component(std::string_view first_line) {
  return first_line.starts_with("A requested component was not found");
}

int number(const std::ssub_match& digits) {
  int value = -1;  // stays where it is no int
  std::from_chars(&*digits.first, &*digits.second, value);
  return value;
}

}  // namespace

void MpirunNoise::feed(std::string_view bytes) {
  partial_ += bytes;
  size_t begin = 0;
  for (size_t end; (end = partial_.find('\n', begin)) != std::string::npos; begin = end + 1)
    line(partial_.substr(begin, end + 1 - begin));
  partial_.erase(0, begin);
}

// `l` with its end of line.
void MpirunNoise::line(const std::string& l) {
  const std::string_view text = std::string_view(l).substr(0, l.find_last_not_of("\r\n") + 1);
  if (is_report_(text)) return;
  if (in_box_) {
    box_ += l;
    if (is_rule(text)) close_box();
    return;
  }
  if (!rule_.empty()) {
    ended_ranks_ = is_about_ended_ranks(text);
    in_box_ =
        ended_ranks_ || is_about_a_host(text) || is_about_a_component(text) || is_about_a_connection(text);
    if (in_box_) {
      box_ = std::exchange(rule_, "") + l;
      return;
    }
    print_(rule_);
    rule_.clear();
  }
  // ssh, before mpirun speaks of it.
  static const std::regex cut_off(
      "(?:Connection to|Timeout, server) (\\S+) (?:closed by remote host|not responding)\\.");
  if (std::cmatch m;
      lost_host_.empty() && text.ends_with('.') && std::regex_match(text.begin(), text.end(), m, cut_off))
    lost_host_ = m[1];
  if (is_rule(text))
    rule_ = l;
  else if (!text.starts_with("mpirun: Forwarding signal") && !text.starts_with("prterun: Forwarding signal"))
    print_(l);
}

void MpirunNoise::close_box() {
  const std::string box = std::exchange(box_, "");
  std::string flat = box;
  for (char& c : flat)
    if (c == '\n' || c == '\r') c = ' ';
  in_box_ = false;
  if (ended_ranks_) return read_ended_rank(flat);
  static const std::regex daemon(R"(Remote daemon:\s+\S+ on node (\S+))"),
      no_launcher(R"(Framework:\s+plm\s+Component:\s+isolated)");
  static const std::regex connection(
      R"(Local host:\s+(\S+) .*connect\(\) to (\S+?)(?::\d+)? failed\s+Error:\s+(.*?\S)(?: \(\d+\))?\s+-{60})");
  std::smatch m;
  if (std::regex_search(flat, m, daemon) && lost_host_.empty()) lost_host_ = m[1];
  if (std::regex_search(flat, m, connection) && unreachable_.empty())
    unreachable_ = m[1].str() + " cannot connect to " + m[2].str() + " (" + m[3].str() + ")";
  if (!std::regex_search(flat, no_launcher)) print_(box);
}

void MpirunNoise::read_ended_rank(const std::string& box) {
  static const std::regex by_signal(
      R"(process rank (\d+) with PID \d+ on node \S+ exited on (signal \d+ \([^)]*\)))");
  static const std::regex by_code(R"(Process name: \[\S+,(\d+)\]\s+Exit code:\s+(\d+))");
  std::smatch m;
  if (failed_rank_ >= 0) return;
  if (std::regex_search(box, m, by_signal)) {
    failed_rank_ = number(m[1]), cause_ = m[2];
  } else if (std::regex_search(box, m, by_code)) {
    failed_rank_ = number(m[1]), exit_code_ = number(m[2]), cause_ = "exit code " + m[2].str();
  }
}

void MpirunNoise::finish() {
  if (!partial_.empty()) line(partial_ + "\n");
  partial_.clear();
  if (in_box_) close_box();
  if (!rule_.empty()) print_(rule_);
  rule_.clear();
}

}  // namespace lockstep
