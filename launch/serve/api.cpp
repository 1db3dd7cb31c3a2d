// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/api.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/serve/body.h"
#include "launch/serve/page.h"
#include "launch/serve/parts.h"
#include "runtime/files/json_text.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {

struct Api::Route {
  const char *path, *method;
  bool open;  // without the token
};

// A request, until it is answered.
struct Api::Call {
  HttpRequest request;
  std::shared_ptr<Reply> reply;
  Clock::time_point start = Clock::now();
  const Route* route = nullptr;  // null: there is none
  std::string name;              // of a model, in the path
  std::string version;           // of the model that answers, once it is known
  bool part = false;             // of a request, which is counted as a whole
  std::shared_ptr<void> place;   // among those of its address, until it is answered or given up
};

namespace {

using nlohmann::ordered_json;

HttpResponse json_answer(const ordered_json& json) { return {200, "application/json", json_text(json)}; }

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

// Whether a path has the form of "/models/NAME/invoke"; NAME in it, which has no slash.
bool matches(const std::string& form, const std::string& path, std::string& name) {
  const size_t at = form.find("NAME");
  if (at == std::string::npos) return form == path;
  const std::string rest = form.substr(at + 4);
  if (path.size() <= at + rest.size() || path.substr(0, at) != form.substr(0, at) || !path.ends_with(rest))
    return false;
  name = path.substr(at, path.size() - at - rest.size());
  return name.find('/') == std::string::npos;
}

}  // namespace

Api::Api(Models& models, ApiOptions options) : models_(models), options_(std::move(options)) {}

void Api::operator()(HttpRequest request, const std::shared_ptr<Reply>& reply) {
  static constexpr Route kRoutes[] = {{"/", "GET", true},
                                      {"/ping", "GET", true},
                                      {"/healthz", "GET", true},
                                      {"/readyz", "GET", true},
                                      {"/metrics", "GET", false},
                                      {"/execution-parameters", "GET", true},
                                      {"/model", "GET", false},
                                      {"/models", "GET", false},
                                      {"/models/reload", "POST", false},
                                      {"/models/NAME", "GET", false},
                                      {"/models/NAME/invoke", "POST", false},
                                      {"/invocations", "POST", false}};
  const auto call = std::make_shared<Call>();
  call->request = std::move(request);
  call->reply = reply;
  for (const Route& r : kRoutes)
    if (!call->route && matches(r.path, call->request.path, call->name)) call->route = &r;
  HttpResponse response;
  try {
    response = answer(call);
  } catch (const Refusal& r) {
    response = answer_of(r);
    if (r.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    response = error_answer(500, "the server failed");
  }
  if (response.status != 0) respond(*call, std::move(response));
}

void Api::respond(Call& call, HttpResponse r) {
  if (call.part) return call.reply->send(std::move(r));
  call.place.reset();
  if (is_friend(call.request.header("origin"))) {
    r.headers.emplace_back("Access-Control-Allow-Origin", call.request.header("origin"));
    r.headers.emplace_back("Access-Control-Expose-Headers", "X-Model, X-Seed, X-Line, Retry-After");
    r.headers.emplace_back("Vary", "Origin");
  }
  const std::string route = call.route ? call.route->path : "other", &method = call.request.method;
  const double seconds = std::chrono::duration<double>(Clock::now() - call.start).count();
  metrics_.count(route, r.status, seconds);
  ordered_json line = {{"peer", call.request.peer},
                       {"method", method.size() > 16 ? "?" : method},
                       {"route", route},
                       {"status", r.status},
                       {"bytes", r.body.size()},
                       {"seconds", std::round(seconds * 1e6) / 1e6}};
  if (!call.version.empty()) {
    line["model"] = call.version;
    r.headers.emplace_back("X-Model", call.version);
  }
  say(stdout, json_text(line) + "\n");
  call.reply->send(std::move(r));
}

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

HttpResponse Api::answer(const std::shared_ptr<Call>& call) {
  const HttpRequest& r = call->request;
  if (!call->route) throw Refusal{404, "there is no such route"};
  if (r.method == "OPTIONS" &&
      is_friend(r.header("origin")))  // a browser asks before a page's request, without a token
    return {204,
            "",
            "",
            {{"Access-Control-Allow-Methods", call->route->method},
             {"Access-Control-Allow-Headers", "Authorization, Content-Type, Accept"},
             {"Access-Control-Max-Age", "600"}}};
  refuse_strangers(*call);
  const std::string method = r.method == "HEAD" ? "GET" : r.method, path = call->route->path;
  if (method != call->route->method)
    return error_answer(405, fmt::format("this route takes {}", call->route->method),
                        {{"Allow", call->route->method}});
  if (path == "/ping" || path == "/healthz" || path == "/readyz") return health(path);
  if (path == "/") return {200, "text/html; charset=utf-8", page(), {{"Cache-Control", "no-cache"}}};
  if (path == "/metrics") return metrics();
  if (path == "/execution-parameters")
    return json_answer({{"MaxConcurrentTransforms", options_.transforms},
                        {"BatchStrategy", options_.batch_strategy},
                        {"MaxPayloadInMB", options_.body_megabytes}});
  if (models_.state() != Service::State::ready) throw Refusal{503, "the model is not loaded", "", 5};
  if (path == "/models/reload") return reload(call);
  if (path == "/models") {
    auto all = ordered_json::array();
    for (const Served& s : models_.all()) all.push_back({{"name", s.name}, {"model", s.version()}});
    return json_answer({{"models", all}});
  }
  if (path == "/model" || path == "/models/NAME") {
    const Served served = models_.find(call->name);
    if (!served.service) throw Refusal{404, "no model of this name is served"};
    return json_answer(describe_for_clients(served));
  }
  enter(*call);
  if (is_json_lines(r)) return invoke_lines(call);
  return invoke(call);
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

HttpResponse Api::health(const std::string& path) const {
  if (path == "/healthz") return {200, "", ""};
  const bool fit = models_.state() == Service::State::ready && !draining_;
  return fit ? HttpResponse{200, "", ""}
             : error_answer(503, draining_ ? "draining" : "the model is not loaded");
}

HttpResponse Api::metrics() const {
  std::string text = metrics_.text();
  const auto counts = models_.counts();
  const auto of_models = [&](const char* name, const char* type, auto member) {
    text += fmt::format("# TYPE {} {}\n", name, type);
    for (const Models::Counts& c : counts)
      text += fmt::format("{}{{model=\"{}\"}} {}\n", name, utf8_text(c.name), c.*member);
  };
  of_models("lockstep_queue_length", "gauge", &Models::Counts::waiting);
  of_models("lockstep_pictures_total", "counter", &Models::Counts::pictures);
  of_models("lockstep_evaluations_total", "counter", &Models::Counts::evaluations);
  if (models_.state() == Service::State::ready) {
    text += "# TYPE lockstep_model_info gauge\n";
    for (const Served& s : models_.all())
      text += fmt::format("lockstep_model_info{{model=\"{}\",version=\"{}\"}} 1\n", utf8_text(s.name),
                          s.version());
  }
  return {200, "text/plain; version=0.0.4", text};
}

HttpResponse Api::reload(const std::shared_ptr<Call>& call) {
  // Whoever could ask for it could keep this machine busy with it.
  if (!options_.loopback && options_.token.empty())
    throw Refusal{403, "beyond this machine models are loaded again with a token only"};
  models_.reload([this, call](const Models::Reloaded& result) {
    if (result.stopped) return respond(*call, answer_of({503, "the server is being stopped", "", 5}));
    if (!result.failed.empty())
      return respond(*call,
                     error_answer(500, fmt::format("could not be loaded, and the one before is served: {}",
                                                   fmt::join(result.failed, ", "))));
    auto all = ordered_json::array();
    for (const Served& s : models_.all()) all.push_back({{"name", s.name}, {"model", s.version()}});
    respond(*call, json_answer({{"models", all}}));
  });
  return {0, "", ""};
}

HttpResponse Api::invoke_lines(const std::shared_ptr<Call>& call) {
  auto requests = requests_in_lines(call->request, models_.find("").service->limits().waiting);
  const auto replies = replies_in_lines(
      requests.size(), [this, call](HttpResponse whole) { respond(*call, std::move(whole)); },
      [reply = call->reply] { return reply->gone(); });
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto line = std::make_shared<Call>();
    line->request = std::move(requests[i]);
    line->reply = replies[i];
    line->name = call->name;
    line->part = true;
    HttpResponse refused;
    try {
      refused = invoke(line);
    } catch (const Refusal& r) {
      refused = answer_of(r);
    }
    call->version = line->version;
    if (refused.status != 0) respond(*line, std::move(refused));
  }
  return {0, "", ""};
}

HttpResponse Api::invoke(const std::shared_ptr<Call>& call) {
  if (call->request.header("accept").empty()) call->request.headers["accept"] = options_.accept;
  const nlohmann::json body = read_json(call->request);
  const std::string named = named_model(body);
  if (!named.empty() && !call->name.empty() && named != call->name)
    throw Refusal{400, "is not the one of the path", "model"};
  const Served served = models_.find(named.empty() ? call->name : named);
  if (!served.service) {
    if (named.empty()) throw Refusal{404, "no model of this name is served"};
    throw Refusal{400, "is no model that is served", "model"};
  }
  Service& service = *served.service;
  call->version = served.version();
  std::unique_ptr<Job> job =
      service.model().diffusion() ? draw(call, body, service) : classify(call, body, service);
  job->deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(service.limits().seconds));
  job->gone = [reply = call->reply] { return reply->gone(); };
  job->refused = [this, call](const Refusal& r) { respond(*call, answer_of(r)); };
  service.take(std::move(job));
  return {0, "", ""};
}

std::unique_ptr<Job> Api::classify(const std::shared_ptr<Call>& call, const nlohmann::json& body,
                                   const Service& service) {
  auto job = std::make_unique<ClassifyJob>();
  const bool several = read_pictures(call->request, body, service.limits(), job->pictures);
  job->done = [this, call, several](const std::vector<Scores>& scores) {
    auto answers = ordered_json::array();
    for (const Scores& s : scores) {
      ordered_json p = ordered_json::object();
      for (const auto& [name, value] : s.probabilities) p[name] = value;
      answers.push_back({{"class", s.best}, {"probabilities", p}});
    }
    respond(*call, json_answer(several ? ordered_json{{"predictions", answers}} : answers[0]));
  };
  return job;
}

std::unique_ptr<Job> Api::draw(const std::shared_ptr<Call>& call, const nlohmann::json& body,
                               const Service& service) {
  const DrawBody drawn = read_draw_request(call->request, body, service);
  auto job = std::make_unique<DrawJob>();
  job->request = drawn.request;
  job->evaluations = drawn.evaluations;
  job->done = [this, call, drawn](const std::vector<Image>& images) {
    const std::string format = drawn.jpeg ? "jpeg" : "png";
    const auto encoded = [&](const Image& image) {
      return drawn.jpeg ? encode_jpeg(image) : encode_png(image);
    };
    HttpResponse r;
    if (drawn.raw) {
      r = {200, "image/" + format, encoded(images[0])};
    } else {
      auto pictures = ordered_json::array();
      for (const Image& image : images) pictures.push_back(base64(encoded(image)));
      ordered_json answer = {{"generated_images", pictures},
                             {"format", format},
                             {"seed", drawn.request.seed},
                             {"model", call->version}};
      if (std::ranges::any_of(drawn.left_out, [](const std::string& text) { return !text.empty(); }))
        answer["left_out"] = drawn.left_out;
      r = json_answer(answer);
    }
    r.headers.emplace_back("X-Seed", std::to_string(drawn.request.seed));
    respond(*call, std::move(r));
  };
  return job;
}

}  // namespace lockstep::serve
