// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/models.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/commands/report_error.h"
#include "runtime/files/json_text.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {
namespace {

constexpr std::chrono::milliseconds kLook{2};  // between looks at a service that opens or ends

}  // namespace

std::string Served::version() const {
  const std::string& hash = service->trained().description_hash;
  return utf8_text(name) + (hash.empty() ? "" : "@" + hash.substr(0, 12));
}

Models::Models(std::vector<ModelSource> sources, const ServiceLimits& limits) : limits_(limits) {
  for (ModelSource& s : sources) {
    auto service = std::make_shared<Service>(s.folder, limits);
    slots_.push_back({std::move(s), std::move(service), nullptr});
  }
  thread_ = std::thread([this] { run(); });
}

Models::~Models() { stop(); }

Service::State Models::state() const {
  const std::lock_guard lock(mutex_);
  Service::State all = Service::State::ready;
  for (const Slot& s : slots_) {
    if (s.current->state() == Service::State::failed) return Service::State::failed;
    if (s.current->state() == Service::State::opening) all = Service::State::opening;
  }
  return all;
}

void Models::rethrow_failure() const {
  const std::lock_guard lock(mutex_);
  std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) {
    return s.current->state() == Service::State::failed;
  })->current->rethrow_failure();
}

Served Models::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const Slot& s : slots_)
    if (name.empty() || s.source.name == name) return {s.source.name, s.current};
  return {};
}

std::vector<Served> Models::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<Served> all;
  for (const Slot& s : slots_) all.push_back({s.source.name, s.current});
  return all;
}

std::vector<Models::Counts> Models::counts() const {
  const std::lock_guard lock(mutex_);
  std::vector<Counts> all;
  for (const Slot& s : slots_) {
    Counts c{s.source.name, 0, 0, s.pictures, s.evaluations};
    for (const Service* service : {s.current.get(), s.before.get()})
      if (service)
        c.waiting += service->waiting(), c.under_way += service->under_way(),
            c.pictures += service->pictures(), c.evaluations += service->evaluations();
    all.push_back(std::move(c));
  }
  return all;
}

void Models::reload(std::function<void(const Reloaded&)> done) {
  {
    const std::lock_guard lock(mutex_);
    if (!draining_) {
      asked_.push_back(std::move(done));
      changed_.notify_all();
      return;
    }
  }
  done({{}, true});
}

void Models::drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
  for (const Slot& s : slots_) s.current->drain();
}

void Models::stop() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  for (const Slot& s : slots_) {
    s.current->stop();
    if (s.before) s.before->stop();
  }
}

bool Models::idle() const {
  const std::lock_guard lock(mutex_);
  return std::all_of(slots_.begin(), slots_.end(),
                     [](const Slot& s) { return s.current->idle() && (!s.before || s.before->idle()); });
}

void Models::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !asked_.empty(); });
    const auto asked = std::exchange(asked_, {});
    Reloaded result{{}, draining_};
    lock.unlock();
    if (!result.stopped)
      for (Slot& s : slots_)
        if (!replace(s)) result.failed.push_back(s.source.name);
    {
      const std::lock_guard again(mutex_);
      result.stopped = draining_;
    }
    for (const auto& done : asked) done(result);
    for (Slot& s : slots_) retire(s);
    lock.lock();
    if (stopping_) return;
  }
}

// Slots are this thread's to change, under the mutex: it reads them without.
bool Models::replace(Slot& slot) {
  auto next = std::make_shared<Service>(slot.source.folder, limits_);
  while (next->state() == Service::State::opening) std::this_thread::sleep_for(kLook);
  if (next->state() == Service::State::failed) {
    try {
      next->rethrow_failure();
    } catch (const std::exception& e) {
      report_error(e.what());
    }
    return false;
  }
  const std::lock_guard lock(mutex_);
  if (draining_) return false;
  slot.before = std::exchange(slot.current, std::move(next));
  return true;
}

// Nobody holds it, and it has answered all: a request that found it has handed its job over before it lets go.
void Models::retire(Slot& slot) {
  if (!slot.before) return;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      if (slot.before.use_count() == 1 && slot.before->idle()) break;
    }
    std::this_thread::sleep_for(kLook);
  }
  const std::lock_guard lock(mutex_);
  slot.pictures += slot.before->pictures(), slot.evaluations += slot.before->evaluations();
  slot.before->stop();  // it waits for work: this takes no time
  slot.before.reset();
}

}  // namespace lockstep::serve
