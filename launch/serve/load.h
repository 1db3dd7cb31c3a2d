// SPDX-License-Identifier: Apache-2.0
// What a server takes: clients that each ask again as soon as they are answered, over one connection each.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lockstep::serve {

struct LoadOptions {
  std::string url;        // "http://HOST:PORT", or of a route
  std::string token;      // empty: none
  std::string authority;  // a PEM file that certificates are held against; empty: the system's
  int clients = 8;
  double seconds = 10;
  // Sent with each request; without a type what the model asks for: a PNG of its size, or JSON.
  std::string body, type;
  int64_t steps = 0, pictures = 1;  // of such JSON; steps 0: the model's own
  std::string prompt;               // of a model that reads text; empty: "a picture"
};

struct Load {
  double seconds = 0;                     // until the last answer
  std::vector<double> latencies;          // seconds, of requests answered with 200, sorted
  std::map<std::string, int64_t> errors;  // by status or what the connection met
  int64_t pictures = 0;                   // of those answers, where they draw
  std::string model;                      // that the server says it is
  // The p-th of the latencies, 0 < p <= 1, by nearest rank; there is one at least.
  double quantile(double p) const;
};

// Errors: unavailable (69) where the server does not say what it serves, or answered no request; usage (64) for a URL
// that is none.
Load put_load(const LoadOptions& options);

}  // namespace lockstep::serve
