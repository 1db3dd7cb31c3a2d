// SPDX-License-Identifier: Apache-2.0
// What clients ask: routes, their bodies, their answers.
//
//   GET  /ping                   200 once the model is loaded (SageMaker)
//   GET  /healthz, /readyz       200 while the process lives; 503 while the model is loaded or drained
//   GET  /execution-parameters   for batch transform (SageMaker)
//   GET  /metrics                Prometheus' text
//   POST /invocations            a picture, or JSON: a class with probabilities, or pictures in base64
//   GET  /                       a page to try it on
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "launch/serve/metrics.h"
#include "launch/serve/service.h"

namespace lockstep::serve {

struct ApiOptions {
  std::string token;     // asked for as "Authorization: Bearer TOKEN"; empty: none
  bool loopback = true;  // Host must be this machine's, so that no other page's name leads here
  int64_t body_megabytes = 6;
};

class Api {
 public:
  Api(Service& service, ApiOptions options);
  void operator()(HttpRequest request, const std::shared_ptr<Reply>& reply);
  void drain() { draining_ = true; }

 private:
  using Respond = std::function<void(HttpResponse)>;
  struct Call {
    HttpRequest request;
    Respond respond;
    std::function<bool()> gone;
  };
  HttpResponse route(Call& call);  // status 0: answered later
  HttpResponse invocations(Call& call);
  HttpResponse classify(Call& call);
  HttpResponse draw(Call& call);
  HttpResponse health(const std::string& path) const;
  void refuse_strangers(const HttpRequest& request, bool open) const;

  Service& service_;
  const ApiOptions options_;
  Metrics metrics_;
  std::atomic<bool> draining_ = false;
};

}  // namespace lockstep::serve
