// SPDX-License-Identifier: Apache-2.0
// Who may ask: by Host, Origin, token, and how much of an address is asked already.
#include <openssl/crypto.h>

#include <algorithm>

#include "launch/serve/call.h"

namespace lockstep::serve {
namespace {

// "[::1]:8080" -> "[::1]"
std::string host_name(const std::string& host) {
  const size_t end = host.rfind(':');
  return end == std::string::npos || host.find(']', end) != std::string::npos ? host : host.substr(0, end);
}

// "http://localhost:8080" -> "localhost:8080"
std::string host_of(const std::string& origin) {
  const size_t at = origin.find("://");
  return at == std::string::npos ? "" : origin.substr(at + 3);
}

bool same(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

void Api::refuse_strangers(const Call& call) const {
  const HttpRequest& request = call.request;
  const bool health = request.path == "/ping" || request.path == "/healthz" || request.path == "/readyz";
  if (options_.loopback && !health) {
    const std::string host = host_name(request.header("host"));
    if (!host.empty() && host != "localhost" && host != "127.0.0.1" && host != "[::1]")
      throw Refusal{403, "this server listens on the loopback address and knows no such host"};
  }
  // A page of another site may send some requests without asking first; its answer it would not see.
  const std::string& origin = request.header("origin");
  if (request.method != "GET" && request.method != "HEAD" && !origin.empty() && !is_friend(origin) &&
      host_of(origin) != request.header("host"))
    throw Refusal{403, "pages of this origin may not ask here"};
  if (call.route->open || options_.token.empty()) return;
  const std::string& given = request.header("authorization");
  if (!given.starts_with("Bearer ") || !same(given.substr(7), options_.token))
    throw Refusal{401, "a token is asked for: Authorization: Bearer TOKEN"};
}

bool Api::is_friend(const std::string& origin) const {
  return std::find(options_.origins.begin(), options_.origins.end(), origin) != options_.origins.end();
}

void Api::enter(Call& call) {
  if (options_.per_client == 0) return;
  const std::lock_guard lock(crowd_->mutex);
  int64_t& asking = crowd_->of_address[call.request.peer];
  if (asking >= options_.per_client)
    throw Refusal{429, fmt::format("an address has {} requests at once at most", options_.per_client), "", 1};
  ++asking;
  call.place = std::shared_ptr<void>(nullptr, [crowd = crowd_, peer = call.request.peer](void*) {
    const std::lock_guard again(crowd->mutex);
    if (const auto it = crowd->of_address.find(peer); --it->second == 0) crowd->of_address.erase(it);
  });
}

}  // namespace lockstep::serve
