// SPDX-License-Identifier: Apache-2.0
// The server as a program: from its options to its end by a signal.
#pragma once

#include <string>
#include <vector>

#include "launch/serve/api.h"

namespace lockstep::serve {

struct ServerOptions {
  std::vector<ModelSource> models;  // one at least
  std::string host = "127.0.0.1";
  int port = 8080;  // 0: any free one
  std::optional<TlsFiles> tls;
  ApiOptions api;  // its loopback follows from host
  ServiceLimits limits;
  double drain_seconds = 30;
};

bool is_loopback(const std::string& host);
// What a folder's model is called: the folder's name, with _ for what is no letter, digit, point or dash.
std::string model_name(const std::string& folder);

// SIGTERM, SIGINT: health checks fail, requests that are there are answered, then it returns; a second signal, or
// drain_seconds: at once. SIGHUP: the models and the certificate are loaded again. Errors: those of Service and HttpServer.
void serve_until_stopped(const ServerOptions& options);

}  // namespace lockstep::serve
