// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/mpirun_noise.h"

#include <charconv>
#include <regex>

namespace lockstep {
namespace {

bool is_rule(std::string_view line) {
  return line.size() > 60 && line.find_first_not_of('-') == std::string_view::npos;
}

// Open MPI 5's mpirun calls itself prterun.
bool is_about_ended_ranks(std::string_view first_line) {
  static const std::regex opening(
      "Primary job  terminated|MPI_ABORT was invoked|(mpirun|prterun) (noticed that process rank|"
      "detected that one or more processes|has exited due to process rank)");
  return std::regex_search(first_line.begin(), first_line.end(), opening,
                           std::regex_constants::match_continuous);
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
  if (in_box_) {
    if (is_rule(text))
      read_box();
    else
      box_ += l;
    return;
  }
  if (!rule_.empty()) {
    if (is_about_ended_ranks(text)) {
      rule_.clear();
      in_box_ = true;
      box_ = l;
      return;
    }
    print_(rule_);
    rule_.clear();
  }
  if (is_rule(text))
    rule_ = l;
  else if (text.substr(0, 25) != "mpirun: Forwarding signal")
    print_(l);
}

void MpirunNoise::read_box() {
  static const std::regex by_signal(
      R"(process rank (\d+) with PID \d+ on node \S+ exited on (signal \d+ \([^)]*\)))");
  static const std::regex by_code(R"(Process name: \[\S+,(\d+)\]\s+Exit code:\s+(\d+))");
  std::string flat = box_;
  for (char& c : flat)
    if (c == '\n' || c == '\r') c = ' ';
  in_box_ = false;
  box_.clear();
  std::smatch m;
  if (failed_rank_ >= 0) return;
  if (std::regex_search(flat, m, by_signal)) {
    failed_rank_ = number(m[1]), cause_ = m[2];
  } else if (std::regex_search(flat, m, by_code)) {
    failed_rank_ = number(m[1]), exit_code_ = number(m[2]), cause_ = "exit code " + m[2].str();
  }
}

void MpirunNoise::finish() {
  if (!partial_.empty()) line(partial_ + "\n");
  partial_.clear();
  if (in_box_) read_box();
  if (!rule_.empty()) print_(rule_);
  rule_.clear();
}

}  // namespace lockstep
