// SPDX-License-Identifier: Apache-2.0
// What clients ask: routes, their bodies, their answers. The table of routes is api.cpp's; /openapi.json shows it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "launch/serve/dialects.h"
#include "launch/serve/drawings.h"
#include "launch/serve/metrics.h"
#include "launch/serve/models.h"

namespace lockstep::serve {

struct ApiOptions {
  std::string token;     // asked for as "Authorization: Bearer TOKEN"; empty: none
  bool loopback = true;  // Host must be this machine's, so that no other page's name leads here
  int64_t body_megabytes = 6;
  int64_t per_client = 0;                   // requests of an address at once; more: 429; 0: any number
  std::vector<std::string> origins;         // whose pages may ask from a browser, as "https://HOST"
  std::string accept = "application/json";  // of a request that says none
  // What a batch transform is told: requests at once, and records of a request.
  int64_t transforms = 1;
  std::string batch_strategy = "SINGLE_RECORD";
};

class Api {
 public:
  Api(Models& models, ApiOptions options);
  void operator()(HttpRequest request, const std::shared_ptr<Reply>& reply);
  void drain() { draining_ = true; }

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;
  struct Route;
  static std::span<const Route> routes();

  // Of a route each; status 0: answered later.
  HttpResponse page(const CallPtr& call);
  HttpResponse ping(const CallPtr& call);
  HttpResponse alive(const CallPtr& call);
  HttpResponse metrics(const CallPtr& call);
  HttpResponse execution_parameters(const CallPtr& call);
  HttpResponse openapi(const CallPtr& call);
  HttpResponse model(const CallPtr& call);
  HttpResponse models(const CallPtr& call);
  HttpResponse run(const CallPtr& call);
  HttpResponse reload(const CallPtr& call);
  HttpResponse invoke_or_lines(const CallPtr& call);
  HttpResponse invoke(const CallPtr& call);
  HttpResponse sdapi_progress(const CallPtr& call);
  HttpResponse sdapi_interrupt(const CallPtr& call);
  HttpResponse sdapi_samplers(const CallPtr& call);
  HttpResponse sdapi_models(const CallPtr& call);
  HttpResponse sdapi_options(const CallPtr& call);

  HttpResponse answer(const CallPtr& call);
  Served named(const Call& call) const;  // in the path; else the first. Refusal (404) where there is none
  HttpResponse invoke_lines(const CallPtr& call);
  std::unique_ptr<Job> classify(const CallPtr& call, const nlohmann::json& body, const Service& service);
  std::unique_ptr<Job> draw(const CallPtr& call, const nlohmann::json& body, const Service& service);
  // With what every answer has; `respond` also counts and logs it, as a stream's end does.
  void add_headers(const Call& call, HttpResponse& response) const;
  void respond(Call& call, HttpResponse response);
  void refuse(Call& call, const Refusal& refusal);
  void note(Call& call, int status, size_t bytes);
  // An event of the answer, whose stream begins with the first. `last`: the answer ends with it.
  void send_event(Call& call, const Event& event, bool last = false);

  void refuse_strangers(const Call& call) const;
  bool is_friend(const std::string& origin) const;
  // Counts it as one of its address, until it is answered or given up. Refusal (429) where that has too many.
  void enter(Call& call);

  Models& models_;
  const ApiOptions options_;
  Metrics metrics_;
  Drawings drawings_;  // of AUTOMATIC1111's clients
  std::atomic<bool> draining_ = false;
  struct Crowd {
    std::mutex mutex;
    std::map<std::string, int64_t> of_address;  // requests that are being answered
  };
  const std::shared_ptr<Crowd> crowd_ = std::make_shared<Crowd>();  // calls hold it too
};

}  // namespace lockstep::serve
