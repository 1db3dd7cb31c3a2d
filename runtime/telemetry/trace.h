// SPDX-License-Identifier: Apache-2.0
// What a rank does and when, over some of its steps: for Chrome's trace viewer (ui.perfetto.dev opens the
// same files) and for `--profile`.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

class Trace {
 public:
  // Something that is done in each step. Its address is its identity, and must stay valid as long as the
  // trace.
  struct Work {
    std::string name;              // op and layer, for instance
    std::string category;          // forward, backward, update, communication, wait
    std::string kernel;            // where it is one's
    int64_t flops = 0, bytes = 0;  // bytes of all operands
  };
  // The computing thread's spans, and those of buckets being reduced, which overlap them.
  enum class Lane : uint8_t { compute, communication };

  // Records `steps` steps from the call of start() on.
  explicit Trace(int64_t steps) : steps_(steps) {}

  // Time 0 of the trace: now.
  void start();
  bool recording() const { return recording_.load(std::memory_order_relaxed); }
  // The end of a step that has been recorded. The last one ends the recording.
  void end_step();
  int64_t steps() const { return seen_; }

  static int64_t now_ns();  // monotonic
  // A lane is written by one thread at a time. To be called while recording() only. `bytes`: this time, where
  // they differ.
  void add(Lane lane, const Work& work, int64_t begin_ns, int64_t end_ns, int64_t bytes = 0);

  // Events of this rank as comma-separated JSON objects; trace_file() makes a file of all ranks' (index:
  // rank). Format: "Trace Event Format", complete events, times in microseconds.
  std::string events(int rank) const;
  static std::string trace_file(const std::vector<std::string>& events_of_ranks);

  struct Row {
    const Work* work = nullptr;
    double seconds = 0;  // in all recorded steps
    int64_t calls = 0;
  };
  // The computing thread's work, most expensive first. Valid as long as the trace.
  std::vector<Row> rows() const;
  double step_seconds() const;  // mean of the recorded steps
  // Of each time that the computing thread did this, in order.
  std::vector<double> seconds_of(const Work& work) const;

 private:
  struct Span {
    const Work* work;
    int64_t begin_ns, end_ns, bytes;
  };
  int64_t steps_, seen_ = 0;
  int64_t zero_ns_ = 0, end_ns_ = 0;
  std::atomic<bool> recording_ = false;
  std::vector<Span> lanes_[2];
};

// The ten most expensive kinds of work as a table: time a step, its share, GFLOP/s and, where the machine's
// peak is known (GFLOP/s; 0: not), percent of it.
std::string profile_table(const Trace& trace, double peak_gflops);

}  // namespace lockstep
