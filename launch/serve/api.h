// SPDX-License-Identifier: Apache-2.0
// What clients ask: routes, their bodies, their answers.
//
//   GET  /ping                   200 once the models are loaded (SageMaker)
//   GET  /healthz, /readyz       200 while the process lives; 503 while models are loaded or drained
//   GET  /execution-parameters   for batch transform (SageMaker)
//   GET  /metrics                Prometheus' text
//   GET  /model, /models, /models/NAME   what is served
//   POST /models/reload          opens the folders again, and answers when the models have changed places
//   POST /invocations            a picture, or JSON: a class with probabilities, or pictures in base64; of JSON lines
//                                an answer a line
//   POST /models/NAME/invoke     the same of a certain model (SageMaker)
//   GET  /                       a page to try it on
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

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
  struct Route;
  struct Call;
  HttpResponse answer(const std::shared_ptr<Call>& call);  // status 0: answered later
  HttpResponse invoke_lines(const std::shared_ptr<Call>& call);
  HttpResponse invoke(const std::shared_ptr<Call>& call);
  std::unique_ptr<Job> classify(const std::shared_ptr<Call>& call, const nlohmann::json& body,
                                const Service& service);
  std::unique_ptr<Job> draw(const std::shared_ptr<Call>& call, const nlohmann::json& body,
                            const Service& service);
  HttpResponse health(const std::string& path) const;
  HttpResponse metrics() const;
  HttpResponse reload(const std::shared_ptr<Call>& call);
  void refuse_strangers(const Call& call) const;
  void respond(Call& call, HttpResponse response);
  bool is_friend(const std::string& origin) const;
  // Counts it as one of its address, until it is answered or given up. Refusal (429) where that has too many.
  void enter(Call& call);

  Models& models_;
  const ApiOptions options_;
  Metrics metrics_;
  std::atomic<bool> draining_ = false;
  struct Crowd {
    std::mutex mutex;
    std::map<std::string, int64_t> of_address;  // requests that are being answered
  };
  const std::shared_ptr<Crowd> crowd_ = std::make_shared<Crowd>();  // calls hold it too
};

}  // namespace lockstep::serve
