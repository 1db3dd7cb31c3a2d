#include "launch/launcher/mpirun_noise.h"

#include <cstdio>
#include <regex>

namespace lockstep {
namespace {

bool is_rule(const std::string& line) {
  return line.size() > 20 && line.find_first_not_of('-') == std::string::npos;
}

}  // namespace

void MpirunNoise::feed(std::string_view bytes) {
  partial_ += bytes;
  for (size_t end; (end = partial_.find('\n')) != std::string::npos; partial_.erase(0, end + 1)) line(partial_.substr(0, end));
}

void MpirunNoise::line(const std::string& l) {
  if (is_rule(l)) {
    if (in_box_) close_box();
    in_box_ = !in_box_;
    return;
  }
  if (in_box_)
    box_ += l + "\n";
  else if (l.rfind("mpirun: Forwarding signal", 0) != 0)
    std::fprintf(stderr, "%s\n", l.c_str());
}

void MpirunNoise::close_box() {
  static const std::regex ended(R"(process rank (\d+) with PID \d+ on node \S+ exited on (signal \d+ \([^)]*\)))");
  const std::string flat = std::regex_replace(box_, std::regex("\n"), " ");
  std::smatch m;
  if (killed_rank_ < 0 && std::regex_search(flat, m, ended)) killed_rank_ = std::stoi(m[1]), cause_ = m[2];
  text_ += box_;
  box_.clear();
}

void MpirunNoise::finish() {
  if (!partial_.empty()) line(partial_);
  partial_.clear();
  if (in_box_) close_box();
}

}  // namespace lockstep
