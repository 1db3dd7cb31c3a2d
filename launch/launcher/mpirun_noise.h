// mpirun's own words among the ranks' on its standard error: boxes between lines of dashes. The ranks' lines pass through;
// boxes about ended ranks are read for which rank it was and why, and kept back.
#pragma once

#include <string>
#include <string_view>

namespace lockstep {

class MpirunNoise {
 public:
  void feed(std::string_view bytes);
  void finish();  // what is still held back goes out

  int killed_rank() const { return killed_rank_; }      // -1: none was named
  const std::string& cause() const { return cause_; }   // "signal 9 (Killed)"
  const std::string& text() const { return text_; }     // the boxes kept back

 private:
  void line(const std::string& line);
  void close_box();

  std::string partial_, box_, text_, cause_;
  bool in_box_ = false;
  int killed_rank_ = -1;
};

}  // namespace lockstep
