// SPDX-License-Identifier: Apache-2.0
// A model at work for many clients: one queue, one thread that computes. A classifier takes the pictures that wait
// together; a drawing begins at the next step of those that are under way, and shares their evaluations.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "launch/serve/answers.h"
#include "launch/serve/easel.h"

namespace lockstep::serve {

using Clock = std::chrono::steady_clock;

// Of a request; what is more is refused with 400.
struct ServiceLimits {
  int64_t waiting = 64;   // requests in the queue; more: 503
  int64_t pictures = 16;  // of a request
  int64_t batch = 16;     // samples of one evaluation
  int64_t steps = 1000;
  int64_t prompt_bytes = 10000;
  std::vector<PictureSize> sizes =
      {};               // that painters draw, the first where nothing is said; none: their own
  double seconds = 60;  // from its arrival to its answer; what would take longer is refused at once: 503
};

// What every request brings. Of `refused` and a job's `done` one is called, once; neither where the client has gone.
struct Job {
  virtual ~Job() = default;
  virtual int64_t samples() const = 0;         // of each evaluation of the model
  virtual int64_t steps() const { return 1; }  // evaluations
  virtual double weight() const { return 1; }  // of a sample, beside one of the model's first size
  double work() const { return static_cast<double>(samples()) * static_cast<double>(steps()) * weight(); }

  Clock::time_point deadline;
  std::function<bool()> gone = [] { return false; };
  std::function<void(const Refusal&)> refused;
};

struct Scores {
  std::string best;
  std::vector<std::pair<std::string, double>> probabilities;  // by class, the likeliest first
};
struct ClassifyJob : Job {
  int64_t samples() const override { return static_cast<int64_t>(pictures.size()); }
  std::vector<std::string> pictures;  // PNG or JPEG
  std::function<void(std::vector<Scores>)> done;
};

struct DrawJob : Job {
  int64_t samples() const override { return request.count * (diffusion::guided(request) ? 2 : 1); }
  int64_t steps() const override { return evaluations; }
  double weight() const override { return pixels; }
  diffusion::GenerateRequest request;
  PictureSize size;
  double pixels = 1;  // beside those of the model's first size
  int64_t evaluations = 0;
  // By the service's thread, when it begins (0) and after each evaluation but the last: whether `preview` is to be told
  // the pictures as the model sees them by now.
  std::function<bool(int64_t evaluation)> at = [](int64_t) { return false; };
  std::function<void(std::vector<Image>)> preview;
  // Whether it is to end with the pictures as they are by now: none before the first evaluation.
  std::function<bool()> interrupted = [] { return false; };
  std::function<void(std::vector<Image>)> done;
};

class Service {
 public:
  // Opens the model in its own thread; state() says when it is ready.
  Service(std::string folder, const ServiceLimits& limits);
  ~Service();

  enum class State : uint8_t { opening, ready, failed };
  State state() const { return state_; }
  [[noreturn]] void rethrow_failure() const;  // once it has failed
  // Once it is ready.
  const ModelDescription& model() const { return trained_.description; }
  const TrainedModel& trained() const { return trained_; }
  const ServiceLimits& limits() const { return limits_; }
  const std::vector<PictureSize>& sizes() const { return sizes_; }  // of a painter, one at least

  // Of the run that the model is from, as it was on opening: `lockstep report`'s page. "": there are no metrics.
  const std::string& report() const { return report_; }

  // Takes the job, or refuses it at once.
  void take(std::unique_ptr<Job> job);
  // Takes no more; jobs that it has are finished.
  void drain();
  // Ends its thread after the step under way; jobs that it still has are refused. What jobs answer to must be
  // there until then.
  void stop();
  bool idle() const { return under_way() == 0; }
  int64_t waiting() const;
  int64_t under_way() const;                            // waiting, or worked on: taken and not answered yet
  int64_t pictures() const { return pictures_; }        // answered so far
  int64_t evaluations() const { return evaluations_; }  // of the model

 private:
  struct Active;
  void run();
  void open();
  std::vector<std::unique_ptr<Job>> next_jobs(bool wait, int64_t room);
  void classify(std::vector<std::unique_ptr<Job>> jobs);
  void begin(std::unique_ptr<Job> job);
  void step();
  void evaluate(Easel& easel);
  void finish(Active& active);
  void tell(Active& active);
  // Why the job cannot be taken now. The mutex is held.
  std::optional<Refusal> refusal_of(const Job& job) const;
  // Whether nobody waits for its answer any more: refused where its time is over, counted out.
  bool is_over(const Job& job);

  const std::string folder_;
  const ServiceLimits limits_;
  TrainedModel trained_;
  std::unique_ptr<Communicator> alone_;
  std::unique_ptr<InferenceSession> session_;  // of a classifier
  std::vector<PictureSize> sizes_;
  std::string report_;
  std::atomic<State> state_ = State::opening;
  std::exception_ptr failure_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Job>> queue_;
  bool draining_ = false, stopping_ = false;
  double queued_work_ = 0;       // samples times steps
  double seconds_per_work_ = 0;  // measured; 0: not yet
  std::atomic<double> active_work_ = 0;

  // The thread's own.
  std::vector<std::unique_ptr<Easel>> easels_;  // of a painter, one a size; texts are the first one's
  std::vector<std::unique_ptr<Active>> active_;
  std::atomic<int64_t> working_ = 0, pictures_ = 0, evaluations_ = 0;
  std::thread thread_;
};

}  // namespace lockstep::serve
