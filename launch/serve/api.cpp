// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/api.h"

#include <openssl/crypto.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/serve/body.h"
#include "launch/serve/page.h"
#include "runtime/files/json_text.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {
namespace {

using nlohmann::ordered_json;

struct Route {
  const char *path, *methods;
  bool open;  // without the token
};
constexpr Route kRoutes[] = {{"/", "GET", true},         {"/ping", "GET", true},
                             {"/healthz", "GET", true},  {"/readyz", "GET", true},
                             {"/metrics", "GET", false}, {"/execution-parameters", "GET", true},
                             {"/model", "GET", false},   {"/invocations", "POST", false}};

const Route* find_route(const std::string& path) {
  for (const Route& r : kRoutes)
    if (path == r.path) return &r;
  return nullptr;
}

HttpResponse json_answer(const ordered_json& json) { return {200, "application/json", json_text(json)}; }

// "[::1]:8080" -> "[::1]"
std::string host_name(const std::string& host) {
  const size_t end = host.rfind(':');
  return end == std::string::npos || host.find(']', end) != std::string::npos ? host : host.substr(0, end);
}

bool same(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

Api::Api(Service& service, ApiOptions options) : service_(service), options_(std::move(options)) {}

void Api::operator()(HttpRequest request, const std::shared_ptr<Reply>& reply) {
  const auto start = Clock::now();
  const Route* const known = find_route(request.path);
  const auto respond = [this, reply, start, route = std::string(known ? known->path : "other"),
                        method = request.method, peer = request.peer](HttpResponse r) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    metrics_.count(route, r.status, seconds);
    say(stdout, json_text(ordered_json{{"peer", peer},
                                       {"method", method.size() > 16 ? "?" : method},
                                       {"route", route},
                                       {"status", r.status},
                                       {"bytes", r.body.size()},
                                       {"seconds", std::round(seconds * 1e6) / 1e6}}) +
                    "\n");
    reply->send(std::move(r));
  };
  Call call{std::move(request), respond, [reply] { return reply->gone(); }};
  HttpResponse answer;
  try {
    answer = route(call);
  } catch (const Refusal& r) {
    answer = answer_of(r);
    if (r.status == 401) answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    answer = error_answer(500, "the server failed");
  }
  if (answer.status != 0) respond(std::move(answer));
}

void Api::refuse_strangers(const HttpRequest& request, bool open) const {
  const bool health = request.path == "/ping" || request.path == "/healthz" || request.path == "/readyz";
  if (options_.loopback && !health) {
    const std::string host = host_name(request.header("host"));
    if (!host.empty() && host != "localhost" && host != "127.0.0.1" && host != "[::1]")
      throw Refusal{403, "this server listens on the loopback address and knows no such host"};
  }
  if (open || options_.token.empty()) return;
  const std::string& given = request.header("authorization");
  if (!given.starts_with("Bearer ") || !same(given.substr(7), options_.token))
    throw Refusal{401, "a token is asked for: Authorization: Bearer TOKEN"};
}

HttpResponse Api::route(Call& call) {
  const HttpRequest& r = call.request;
  const Route* const known = find_route(r.path);
  if (!known) throw Refusal{404, "there is no such route"};
  refuse_strangers(r, known->open);
  const std::string method = r.method == "HEAD" ? "GET" : r.method;
  if (method != known->methods)
    return error_answer(405, fmt::format("this route takes {}", known->methods), {{"Allow", known->methods}});
  if (r.path == "/ping" || r.path == "/healthz" || r.path == "/readyz") return health(r.path);
  if (r.path == "/") return {200, "text/html; charset=utf-8", page(), {{"Cache-Control", "no-cache"}}};
  if (r.path == "/metrics")
    return {200, "text/plain; version=0.0.4",
            metrics_.text() +
                fmt::format("# TYPE lockstep_queue_length gauge\nlockstep_queue_length {}\n"
                            "# TYPE lockstep_pictures_total counter\nlockstep_pictures_total {}\n"
                            "# TYPE lockstep_evaluations_total counter\nlockstep_evaluations_total {}\n",
                            service_.waiting(), service_.pictures(), service_.evaluations())};
  if (r.path == "/execution-parameters")
    return json_answer({{"MaxConcurrentTransforms", 1},
                        {"BatchStrategy", "SINGLE_RECORD"},
                        {"MaxPayloadInMB", options_.body_megabytes}});
  if (service_.state() != Service::State::ready) throw Refusal{503, "the model is not loaded", "", 5};
  if (r.path == "/model") return json_answer(describe_for_clients(service_));
  return invocations(call);
}

HttpResponse Api::health(const std::string& path) const {
  if (path == "/healthz") return {200, "", ""};
  const bool fit = service_.state() == Service::State::ready && !draining_;
  return fit ? HttpResponse{200, "", ""}
             : error_answer(503, draining_ ? "draining" : "the model is not loaded");
}

HttpResponse Api::invocations(Call& call) {
  return service_.model().diffusion() ? draw(call) : classify(call);
}

HttpResponse Api::classify(Call& call) {
  auto job = std::make_unique<ClassifyJob>();
  const bool several = read_pictures(call.request, service_.limits(), job->pictures);
  job->deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(service_.limits().seconds));
  job->gone = call.gone;
  job->refused = [respond = call.respond](const Refusal& r) { respond(answer_of(r)); };
  job->done = [respond = call.respond, several, &service = service_](const std::vector<Scores>& scores) {
    auto answers = ordered_json::array();
    for (const Scores& s : scores) {
      ordered_json p = ordered_json::object();
      for (const auto& [name, value] : s.probabilities) p[name] = value;
      answers.push_back({{"class", s.best}, {"probabilities", p}});
    }
    HttpResponse r = json_answer(several ? ordered_json{{"predictions", answers}} : answers[0]);
    r.headers.emplace_back("X-Model", model_version(service));
    respond(std::move(r));
  };
  service_.take(std::move(job));
  return {0, "", ""};
}

HttpResponse Api::draw(Call& call) {
  const DrawBody body = read_draw_request(call.request, service_);
  auto job = std::make_unique<DrawJob>();
  job->request = body.request;
  job->deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(service_.limits().seconds));
  job->gone = call.gone;
  job->refused = [respond = call.respond](const Refusal& r) { respond(answer_of(r)); };
  job->done = [respond = call.respond, body, &service = service_](const std::vector<Image>& images) {
    HttpResponse r;
    if (body.raw) {
      r = {200, "image/png", encode_png(images[0])};
    } else {
      auto pictures = ordered_json::array();
      for (const Image& image : images) pictures.push_back(base64(encode_png(image)));
      r = json_answer({{"generated_images", pictures},
                       {"format", "png"},
                       {"seed", body.request.seed},
                       {"model", model_version(service)}});
    }
    r.headers.emplace_back("X-Seed", std::to_string(body.request.seed));
    r.headers.emplace_back("X-Model", model_version(service));
    respond(std::move(r));
  };
  service_.take(std::move(job));
  return {0, "", ""};
}

}  // namespace lockstep::serve
