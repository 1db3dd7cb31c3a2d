// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/service.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/commands/report_error.h"
#include "launch/report/page.h"
#include "models/objectives/classification.h"
#include "models/objectives/diffusion.h"
#include "models/picture.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {
namespace {

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::vector<Scores> scores_of(const ModelDescription& model, std::span<const float> log_p) {
  const auto classes = static_cast<size_t>(model.input.classes);
  std::vector<Scores> all;
  for (size_t at = 0; at < log_p.size(); at += classes) {
    std::vector<int64_t> order(classes);
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto p = log_p.subspan(at, classes);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
    });
    Scores s;
    s.best = model.class_text(order[0]);
    for (int64_t c : order)
      s.probabilities.emplace_back(model.class_text(c), std::exp(double{p[static_cast<size_t>(c)]}));
    all.push_back(std::move(s));
  }
  return all;
}

// What is damaged there says so, and the model is served.
std::string report_of(const std::string& run) {
  if (run.empty() || !is_there(run + "/metrics.jsonl")) return "";
  try {
    report::RunRecord record = report::read_run_record(run);
    record.folder = record.name;  // where it lies is no client's business
    return report::page(std::span(&record, 1));
  } catch (const Error& e) {
    report_error(e.what());
    return "";
  }
}

}  // namespace

// A drawing under way. Its texts are there as long as it is.
struct Service::Active {
  Active(Easel& where, diffusion::TextVectors* kept) : easel(where), texts(kept) {}
  ~Active() {
    if (texts) texts->drop(numbers);
  }
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;

  Easel& easel;
  diffusion::TextVectors* texts;  // null: the model reads none
  std::vector<int32_t> numbers;   // there, of the request's texts
  std::unique_ptr<DrawJob> job;
  std::unique_ptr<diffusion::Drawing> drawing;
};

Service::Service(std::string folder, const ServiceLimits& limits)
    : folder_(std::move(folder)), limits_(limits), thread_([this] { run(); }) {}

Service::~Service() { stop(); }

void Service::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = draining_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Service::rethrow_failure() const {
  const std::lock_guard lock(mutex_);
  std::rethrow_exception(failure_);
}

int64_t Service::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(queue_.size());
}

int64_t Service::under_way() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(queue_.size()) + working_;
}

bool Service::is_over(const Job& job) {
  const bool late = Clock::now() > job.deadline;
  if (late) job.refused({504, "the deadline passed before there was an answer"});
  if (!late && !job.gone()) return false;
  --working_;
  return true;
}

std::optional<Refusal> Service::refusal_of(const Job& job) const {
  const double before = seconds_per_work_ * (queued_work_ + active_work_);
  const double seconds = before + seconds_per_work_ * job.work();
  const int after = std::max(1, static_cast<int>(std::ceil(before)));
  if (draining_) return Refusal{503, "the server is being stopped", "", 5};
  if (state_ != State::ready) return Refusal{503, "the model is not loaded yet", "", 5};
  if (static_cast<int64_t>(queue_.size()) >= limits_.waiting)
    return Refusal{503, "the queue is full", "", after};
  if (std::chrono::duration<double>(job.deadline - Clock::now()).count() < seconds)
    return Refusal{503, fmt::format("this would take some {:.0f} s, more than there are", std::ceil(seconds)),
                   "", after};
  return std::nullopt;
}

void Service::take(std::unique_ptr<Job> job) {
  std::unique_lock lock(mutex_);
  if (const auto refusal = refusal_of(*job)) {
    lock.unlock();
    return job->refused(*refusal);
  }
  queued_work_ += job->work();
  queue_.push_back(std::move(job));
  changed_.notify_one();
}

void Service::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

void Service::open() {
  trained_ = open_trained(folder_, report_error);
  report_ = report_of(trained_.run);
  alone_ = make_self_communicator();
  if (!trained_.description.diffusion()) {
    session_ = open_session(trained_, {.largest_batch = limits_.batch}, *alone_);
    return;
  }
  const InputShape& own = trained_.description.input;
  sizes_ = limits_.sizes.empty() ? std::vector{PictureSize{own.height, own.width}} : limits_.sizes;
  for (const PictureSize& size : sizes_)
    easels_.push_back(std::make_unique<Easel>(trained_, size, limits_.batch, *alone_,
                                              easels_.empty() ? nullptr : easels_[0]->own_texts.get()));
  trained_.description = easels_[0]->trained.description;
}

// As many waiting jobs as there is room for, in their order; the first whatever it needs.
std::vector<std::unique_ptr<Job>> Service::next_jobs(bool wait, int64_t room) {
  std::unique_lock lock(mutex_);
  if (wait) changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
  std::vector<std::unique_ptr<Job>> jobs;
  while (!queue_.empty() && (queue_.front()->samples() <= room || (jobs.empty() && room == limits_.batch))) {
    room -= queue_.front()->samples();
    queued_work_ = std::max(0.0, queued_work_ - queue_.front()->work());
    jobs.push_back(std::move(queue_.front()));
    queue_.pop_front();
    ++working_;
  }
  return jobs;
}

void Service::run() {
  try {
    open();
    state_ = State::ready;
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    state_ = State::failed;
    return;
  }
  for (;;) {
    int64_t busy = 0;
    for (const auto& a : active_) busy += a->drawing->asks();
    auto jobs = next_jobs(active_.empty(), limits_.batch - busy);
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) {
        for (auto& job : jobs) job->refused({503, "the server is being stopped", "", 5});
        for (auto& a : active_) a->job->refused({503, "the server is being stopped", "", 5});
        for (auto& job : queue_) job->refused({503, "the server is being stopped", "", 5});
        active_.clear(), queue_.clear();  // with the connections that they hold, as long as there is a server
        return;
      }
    }
    std::erase_if(jobs, [&](const auto& job) { return is_over(*job); });
    if (trained_.description.diffusion()) {
      for (auto& job : jobs) begin(std::move(job));
      step();
    } else if (!jobs.empty()) {
      classify(std::move(jobs));
    }
  }
}

void Service::classify(std::vector<std::unique_ptr<Job>> jobs) {
  const auto start = Clock::now();
  const ModelDescription& model = trained_.description;
  const auto classes = static_cast<size_t>(model.input.classes);
  std::vector<uint8_t> pixels;
  std::vector<std::pair<ClassifyJob*, size_t>> whose;
  for (auto& job : jobs) {
    auto& c = dynamic_cast<ClassifyJob&>(*job);
    std::vector<uint8_t> own;
    try {
      for (size_t i = 0; i < c.pictures.size(); ++i) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(c.pictures[i].data());
        const Image image =
            decode_picture(model, fmt::format("picture {}", i), {bytes, c.pictures[i].size()});
        own.insert(own.end(), image.pixels.begin(), image.pixels.end());
      }
      pixels.insert(pixels.end(), own.begin(), own.end());
      whose.emplace_back(&c, c.pictures.size());
    } catch (const Error& e) {
      c.refused({400, e.message(), "pictures"});
    }
  }
  size_t count = 0;
  for (const auto& [job, n] : whose) count += n;
  std::vector<float> log_p(count * classes);
  if (count > 0) {
    const InputTensor images = input_tensor(kImages, pixels);
    const OutputTensor output{"log_probabilities", log_p};
    try {
      session_->run(kClassify, static_cast<int64_t>(count), std::span(&images, 1), std::span(&output, 1));
    } catch (const std::exception& e) {
      say(stderr, fmt::format("{}\n", e.what()));
      for (const auto& [job, n] : whose) job->refused({500, "the model failed"});
      working_ -= static_cast<int64_t>(jobs.size());
      return;
    }
    ++evaluations_, pictures_ += static_cast<int64_t>(count);
  }
  size_t at = 0;
  for (const auto& [job, n] : whose) {
    const auto part = std::span(log_p).subspan(at * classes, n * classes);
    at += n;
    if (std::all_of(part.begin(), part.end(), [](float p) { return std::isfinite(p); }))
      job->done(scores_of(model, part));
    else
      job->refused({500, "the model's answer is not finite"});
  }
  working_ -= static_cast<int64_t>(jobs.size());
  if (count > 0) {
    const std::lock_guard lock(mutex_);
    seconds_per_work_ = seconds_between(start, Clock::now()) / static_cast<double>(count);
  }
}

void Service::begin(std::unique_ptr<Job> job) {
  auto& draw = dynamic_cast<DrawJob&>(*job);
  const diffusion::GenerateRequest& r = draw.request;
  Easel& easel = *easels_[static_cast<size_t>(std::ranges::find(sizes_, draw.size) - sizes_.begin())];
  diffusion::TextVectors* const texts = easels_[0]->own_texts.get();
  auto a = std::make_unique<Active>(easel, texts);
  const auto refuse = [&](const Refusal& why) {
    draw.refused(why);
    --working_;
  };
  const auto [channels, height, width] = easel.trained.description.drawn_shape();
  diffusion::DrawingRequest request{.elements = channels * height * width,
                                    .numbers = r.numbers,
                                    .labels = r.labels,
                                    .guidance = r.guidance,
                                    .null_label = r.null_label,
                                    .seed = r.seed};
  try {
    if (texts) {
      a->numbers = texts->add(r.tokens);
      for (int32_t& label : request.labels) label = a->numbers[static_cast<size_t>(label)];
      request.null_label = a->numbers[static_cast<size_t>(r.null_label)];
    }
    a->drawing = std::make_unique<diffusion::Drawing>(
        diffusion::make_sampler(r.sampler, trained_.description.scheduler, r.steps, r.eta), request);
  } catch (const Error& e) {
    return refuse({400, e.message()});
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    return refuse({500, "the model failed"});
  }
  a->job.reset(dynamic_cast<DrawJob*>(job.release()));
  a->job->at(0);
  active_.push_back(std::move(a));
}

void Service::step() {
  std::erase_if(active_, [&](const std::unique_ptr<Active>& a) {
    if (is_over(*a->job)) return true;
    if (!a->job->interrupted()) return false;
    finish(*a);
    --working_;
    return true;
  });
  if (active_.empty()) {
    active_work_ = 0;
    return;
  }
  for (const auto& easel : easels_) evaluate(*easel);
  double left = 0;
  for (const auto& a : active_)
    left += static_cast<double>(a->drawing->asks()) * a->job->weight() *
            static_cast<double>(a->drawing->steps() - a->drawing->step());
  active_work_ = left;
}

// One step of those that are drawn at this size.
void Service::evaluate(Easel& easel) {
  std::vector<diffusion::Drawing*> drawings;
  double work = 0;
  for (const auto& a : active_)
    if (&a->easel == &easel) {
      drawings.push_back(a->drawing.get());
      work += static_cast<double>(a->drawing->asks()) * a->job->weight();
    }
  if (drawings.empty()) return;
  const auto start = Clock::now();
  try {
    (*easel.evaluation)(drawings);
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    std::erase_if(active_, [&](const std::unique_ptr<Active>& a) {
      if (&a->easel != &easel) return false;
      a->job->refused({500, "the model failed"});
      --working_;
      return true;
    });
    return;
  }
  ++evaluations_;
  {
    const std::lock_guard lock(mutex_);
    seconds_per_work_ = seconds_between(start, Clock::now()) / work;
  }
  std::erase_if(active_, [&](const std::unique_ptr<Active>& a) {
    if (&a->easel != &easel) return false;
    if (!a->drawing->done()) {
      tell(*a);
      return false;
    }
    finish(*a);
    --working_;
    return true;
  });
}

void Service::tell(Active& a) {
  if (!a.job->at(a.drawing->step())) return;
  try {
    auto images = a.easel.decoded(a.drawing->estimate(), a.job->request.count);
    for (float& x : images) x = std::isfinite(x) ? x : 0;
    a.job->preview(diffusion::pictures(images, a.easel.trained.description.input));
  } catch (const std::exception& e) {  // the answer goes on without it
    say(stderr, fmt::format("{}\n", e.what()));
  }
}

void Service::finish(Active& a) {
  const bool done = a.drawing->done();  // else it was interrupted
  if (!done && a.drawing->step() == 0) return a.job->done({});
  const auto drawn = a.drawing->images();
  std::vector<float> images;
  try {
    images = a.easel.decoded(done ? std::vector<float>(drawn.begin(), drawn.end()) : a.drawing->estimate(),
                             a.job->request.count);
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    return a.job->refused({500, "the model failed"});
  }
  if (!std::all_of(images.begin(), images.end(), [](float x) { return std::isfinite(x); }))
    return a.job->refused({500, "the picture holds numbers that are not finite"});
  pictures_ += a.job->request.count;
  a.job->done(diffusion::pictures(images, a.easel.trained.description.input));
}

}  // namespace lockstep::serve
