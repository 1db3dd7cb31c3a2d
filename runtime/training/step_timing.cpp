// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/step_timing.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <mutex>
#include <random>
#include <thread>

#include "runtime/device/cpu_topology.h"
#include "runtime/device/spin_barrier.h"
#include "runtime/telemetry/median.h"

namespace lockstep {
namespace {

constexpr int kWarmUp = 2;  // steps; they touch memory for the first time
constexpr int64_t kFewest = 5, kMost = 200;
constexpr double kSeconds = 1.5;

// A rank that trains without data and without others.
class LoneRank {
 public:
  LoneRank(const SessionOptions& options, int64_t batch, int ranks)
      : comm_(make_mirror_communicator(ranks)), session_(options, *comm_) {
    const TrainingConfig& c = options.config;
    session_.prepare_training(batch);
    session_.model().initialise(c.seed);
    session_.model().start_ema();
    session_.executor().upload_model();
    const int64_t parts = micro_batches(c, ranks);
    for (int64_t m = 0; m < parts; ++m) parts_.push_back(&session_.training(batch, m));
    make_up_inputs();
    inputs_.state.seed = c.seed;
    inputs_.state.global_samples = batch * parts * ranks;
  }

  void step() {
    for (const Session::Compiled* part : parts_) session_.executor().run(*part->bound, inputs_);
    ++inputs_.state.step;
  }
  void set_trace(Trace* trace) { session_.executor().set_trace(trace); }

  std::vector<StepEvent> events(const Trace& trace) {
    std::vector<StepEvent> all;
    for (const Session::Compiled* part : parts_) {
      std::vector<double> seconds;
      for (const Trace::Work& work : session_.executor().works(*part->bound)) {
        const auto times = trace.seconds_of(work);
        seconds.push_back(times.empty() ? 0 : median(times));  // views take none
      }
      const auto events = step_events(*part->plan, seconds);
      all.insert(all.end(), events.begin(), events.end());
    }
    return all;
  }

 private:
  // Random bytes; numbers are 0, which is a label of any data and a token of any vocabulary.
  void make_up_inputs() {
    std::minstd_rand random(1);
    for (const Port& port : input_ports(parts_[0]->plan->graph)) {
      auto& bytes = tensors_.emplace_back(static_cast<size_t>(port.spec.bytes()));
      if (port.spec.dtype == DType::u8)
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() >> 8);
      names_.push_back(port.name);
      inputs_.set({names_.back(), port.spec.dtype, bytes.data(), port.spec.bytes()});
    }
  }

  std::unique_ptr<Communicator> comm_;
  Session session_;
  std::vector<Session::Compiled*> parts_;  // by micro-batch
  std::deque<std::vector<uint8_t>> tensors_;
  std::deque<std::string> names_;
  StepInputs inputs_;
};

}  // namespace

StepTiming time_training_step(const SessionOptions& options, int64_t batch, int ranks, int copies) {
  StepTiming timing;
  SpinBarrier barrier(copies);
  std::mutex one_at_a_time;  // chooses kernels
  std::exception_ptr failure;
  const auto run = [&](int copy) {
    take_share_of_cores(copy, copies);
    std::unique_ptr<LoneRank> rank;
    {
      std::lock_guard lock(one_at_a_time);
      try {
        if (!failure) rank = std::make_unique<LoneRank>(options, batch, ranks);
      } catch (...) {
        failure = std::current_exception();
      }
    }
    barrier.meet();
    if (failure) return;
    const auto step = [&] {
      const int64_t begin = Trace::now_ns();
      rank->step();
      barrier.meet();
      return static_cast<double>(Trace::now_ns() - begin) * 1e-9;
    };
    double seconds = 0;
    for (int i = 0; i < kWarmUp; ++i) seconds = step();
    if (copy == 0) timing.steps = std::clamp(static_cast<int64_t>(kSeconds / seconds), kFewest, kMost);
    barrier.meet();
    Trace trace(timing.steps);
    rank->set_trace(&trace);
    trace.start();
    std::vector<double> times;
    for (int64_t i = 0; i < timing.steps; ++i) {
      times.push_back(step());
      trace.end_step();
    }
    rank->set_trace(nullptr);
    if (copy == 0) timing.events = rank->events(trace), timing.step_seconds = median(times);
  };
  std::vector<std::jthread> threads;
  for (int copy = 0; copy < copies; ++copy) threads.emplace_back(run, copy);
  threads.clear();
  if (failure) std::rethrow_exception(failure);
  return timing;
}

}  // namespace lockstep
