// SPDX-License-Identifier: Apache-2.0
// The models that are served, by name. A reload opens them again beside those at work; each takes its predecessor's
// place between two requests, and the predecessor ends when it has answered all that it took.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/serve/service.h"

namespace lockstep::serve {

struct ModelSource {
  std::string name, folder;
};

// Held while a request is read and handed over: the service stays open so long.
struct Served {
  std::string name;
  std::shared_ptr<Service> service;
  // "NAME@HASH" with the beginning of its model.json's hash, once it is ready; "NAME" where there is no model.json.
  std::string version() const;
};

class Models {
 public:
  // Opens all, each in a thread of its own. The first is for requests that name none.
  Models(std::vector<ModelSource> sources, const ServiceLimits& limits);
  ~Models();

  Service::State state() const;               // failed where one has, ready where all are
  [[noreturn]] void rethrow_failure() const;  // once one has failed

  // "": the first. Without a service: there is none of this name.
  Served find(const std::string& name) const;
  std::vector<Served> all() const;
  struct Counts {
    std::string name;
    int64_t waiting = 0, under_way = 0, pictures = 0, evaluations = 0;  // of predecessors too
  };
  std::vector<Counts> counts() const;

  // Opens all folders again, after the reload that is under way. `done` hears the names of those that could not be
  // opened, whose predecessors go on, and whether it was given up because the server stops; from another thread.
  struct Reloaded {
    std::vector<std::string> failed;
    bool stopped = false;
  };
  void reload(std::function<void(const Reloaded&)> done);

  // As a Service's.
  void drain();
  void stop();
  bool idle() const;

 private:
  struct Slot {
    ModelSource source;
    std::shared_ptr<Service> current, before;  // before: until it has answered all
    int64_t pictures = 0, evaluations = 0;     // of those that have ended
  };
  void run();
  bool replace(Slot& slot);
  void retire(Slot& slot);

  const ServiceLimits limits_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::vector<std::function<void(const Reloaded&)>> asked_;
  bool draining_ = false, stopping_ = false;
  std::thread thread_;  // reloads
};

}  // namespace lockstep::serve
