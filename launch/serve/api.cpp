// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/api.h"

#include <algorithm>
#include <cmath>

#include "launch/serve/call.h"
#include "launch/serve/page.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {
namespace {

using nlohmann::ordered_json;

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

std::span<const Api::Route> Api::routes() {
  static const Route kRoutes[] = {
      {{"/", "GET", "a page to try it on", true, &kOwn}, &Api::page, false},
      {{"/ping", "GET", "200 once the models are loaded", true, &kOwn}, &Api::ping, false},
      {{"/readyz", "GET", "the same", true, &kOwn}, &Api::ping, false},
      {{"/healthz", "GET", "200 while the process lives", true, &kOwn}, &Api::alive, false},
      {{"/metrics", "GET", "as Prometheus reads them", false, &kOwn}, &Api::metrics, false},
      {{"/execution-parameters", "GET", "for batch transform, as SageMaker asks", true, &kOwn},
       &Api::execution_parameters,
       false},
      {{"/openapi.json", "GET", "this", false, &kOwn}, &Api::openapi, false},
      {{"/model", "GET", "kind, size, classes, defaults, limits", false, &kOwn}, &Api::model},
      {{"/models", "GET", "names and versions of what is served", false, &kOwn}, &Api::models},
      {{"/models/reload", "POST", "loads the models again", false, &kOwn}, &Api::reload},
      {{"/models/NAME", "GET", "kind, size, classes, defaults, limits", false, &kOwn}, &Api::model},
      {{"/run", "GET", "a page about the model's training", false, &kOwn}, &Api::run},
      {{"/models/NAME/run", "GET", "the same", false, &kOwn}, &Api::run},
      {{"/models/NAME/invoke", "POST", "the model's answer", false, &kOwn, true}, &Api::invoke_or_lines},
      {{"/invocations", "POST", "the model's answer", false, &kOwn, true}, &Api::invoke_or_lines},
      {{"/v1/images/generations", "POST", "pictures, as OpenAI's clients ask", false, &kOpenAi, true},
       &Api::invoke},
      {{"/sdapi/v1/txt2img", "POST", "pictures, as AUTOMATIC1111's clients ask", false, &kAutomatic1111,
        true},
       &Api::invoke},
      {{"/sdapi/v1/progress", "GET", "how far the caller's are", false, &kAutomatic1111},
       &Api::sdapi_progress},
      {{"/sdapi/v1/interrupt", "POST", "ends the caller's with what there is", false, &kAutomatic1111},
       &Api::sdapi_interrupt},
      {{"/sdapi/v1/samplers", "GET", "names of samplers", false, &kAutomatic1111}, &Api::sdapi_samplers},
      {{"/sdapi/v1/sd-models", "GET", "names of models", false, &kAutomatic1111}, &Api::sdapi_models},
      {{"/sdapi/v1/options", "GET", "the model of requests that name none", false, &kAutomatic1111},
       &Api::sdapi_options}};
  return kRoutes;
}

Api::Api(Models& models, ApiOptions options) : models_(models), options_(std::move(options)) {}

void Api::operator()(HttpRequest request, const std::shared_ptr<Reply>& reply) {
  const auto call = std::make_shared<Call>();
  call->request = std::move(request);
  call->reply = reply;
  for (const Route& r : routes())
    if (!call->route && matches(r.path, call->request.path, call->name)) call->route = &r;
  HttpResponse response;
  try {
    response = answer(call);
  } catch (const Refusal& r) {
    return refuse(*call, r);
  } catch (const std::exception& e) {
    say(stderr, fmt::format("{}\n", e.what()));
    return refuse(*call, {500, "the server failed"});
  }
  if (response.status != 0) respond(*call, std::move(response));
}

void Api::refuse(Call& call, const Refusal& refusal) {
  HttpResponse response = refusal_of(call.dialect(), refusal);
  if (refusal.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (call.events) return send_event(call, {"error", response.body}, true);
  respond(call, std::move(response));
}

void Api::respond(Call& call, HttpResponse r) {
  if (call.part) return call.reply->send(std::move(r));
  call.place.reset();
  add_headers(call, r);
  note(call, r.status, r.body.size());
  call.reply->send(std::move(r));
}

void Api::send_event(Call& call, const Event& event, bool last) {
  if (!call.events) {
    HttpResponse head = call.events.emplace().head();
    add_headers(call, head);
    call.reply->send(std::move(head));
  }
  if (!event.name.empty() && (last || !call.events->behind())) call.events->send(event);
  if (!last) return;
  call.place.reset();
  note(call, 200, call.events->bytes());
  call.events->close();
}

void Api::add_headers(const Call& call, HttpResponse& r) const {
  if (is_friend(call.request.header("origin"))) {
    r.headers.emplace_back("Access-Control-Allow-Origin", call.request.header("origin"));
    r.headers.emplace_back("Access-Control-Expose-Headers", "X-Model, X-Seed, X-Line, Retry-After");
    r.headers.emplace_back("Vary", "Origin");
  }
  if (!call.version.empty()) r.headers.emplace_back("X-Model", call.version);
}

void Api::note(Call& call, int status, size_t bytes) {
  const std::string route = call.route ? call.route->path : "other", &method = call.request.method;
  const double seconds = std::chrono::duration<double>(Clock::now() - call.start).count();
  metrics_.count(route, status, seconds);
  ordered_json line = {{"peer", call.request.peer},
                       {"method", method.size() > 16 ? "?" : method},
                       {"route", route},
                       {"status", status},
                       {"bytes", bytes},
                       {"seconds", std::round(seconds * 1e6) / 1e6}};
  if (!call.version.empty()) line["model"] = call.version;
  say(stdout, json_text(line) + "\n");
}

HttpResponse Api::answer(const CallPtr& call) {
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
  const std::string method = r.method == "HEAD" ? "GET" : r.method;
  if (method != call->route->method) {
    HttpResponse wrong =
        refusal_of(call->dialect(), {405, fmt::format("this route takes {}", call->route->method)});
    wrong.headers.emplace_back("Allow", call->route->method);
    return wrong;
  }
  if (call->route->ready && models_.state() != Service::State::ready)
    throw Refusal{503, "the model is not loaded", "", 5};
  return (this->*call->route->handle)(call);
}

HttpResponse Api::page(const CallPtr&) {
  return {200,
          "text/html; charset=utf-8",
          serve::page(),
          {{"Cache-Control", "no-cache"},
           {"Content-Security-Policy",
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}}};
}

HttpResponse Api::alive(const CallPtr&) { return {200, "", ""}; }

HttpResponse Api::ping(const CallPtr&) {
  const bool fit = models_.state() == Service::State::ready && !draining_;
  return fit ? HttpResponse{200, "", ""}
             : error_answer(503, draining_ ? "draining" : "the model is not loaded");
}

HttpResponse Api::execution_parameters(const CallPtr&) {
  return json_answer({{"MaxConcurrentTransforms", options_.transforms},
                      {"BatchStrategy", options_.batch_strategy},
                      {"MaxPayloadInMB", options_.body_megabytes}});
}

HttpResponse Api::openapi(const CallPtr&) {
  std::vector<RouteFacts> facts(routes().begin(), routes().end());
  return json_answer(serve::openapi(facts, !options_.token.empty()));
}

HttpResponse Api::models(const CallPtr&) {
  auto all = ordered_json::array();
  for (const Served& s : models_.all()) all.push_back({{"name", s.name}, {"model", s.version()}});
  return json_answer({{"models", all}});
}

Served Api::named(const Call& call) const {
  Served served = models_.find(call.name);
  if (!served.service) throw Refusal{404, "no model of this name is served"};
  return served;
}

HttpResponse Api::model(const CallPtr& call) { return json_answer(describe_for_clients(named(*call))); }

HttpResponse Api::run(const CallPtr& call) {
  const Served served = named(*call);
  if (served.service->report().empty()) throw Refusal{404, "of this model's training nothing is there"};
  return {200,
          "text/html; charset=utf-8",
          served.service->report(),
          {{"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}}};
}

HttpResponse Api::metrics(const CallPtr&) {
  std::string text = metrics_.text();
  const auto counts = models_.counts();
  const auto begin = [&](const char* name, const char* type, const char* help) {
    text += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
  };
  const auto of_models = [&](const char* name, const char* type, const char* help, auto member) {
    begin(name, type, help);
    for (const Models::Counts& c : counts)
      text += fmt::format("{}{{model=\"{}\"}} {}\n", name, utf8_text(c.name), c.*member);
  };
  of_models("lockstep_queue_length", "gauge", "Requests that wait.", &Models::Counts::waiting);
  of_models("lockstep_requests_under_way", "gauge", "Requests that were taken and are not answered yet.",
            &Models::Counts::under_way);
  of_models("lockstep_pictures_total", "counter", "Pictures read or drawn.", &Models::Counts::pictures);
  of_models("lockstep_evaluations_total", "counter", "Evaluations of the model.",
            &Models::Counts::evaluations);
  if (models_.state() == Service::State::ready) {
    begin("lockstep_model_info", "gauge", "The models that are served, and their versions.");
    for (const Served& s : models_.all())
      text += fmt::format("lockstep_model_info{{model=\"{}\",version=\"{}\"}} 1\n", utf8_text(s.name),
                          s.version());
  }
  return {200, "text/plain; version=0.0.4", text};
}

HttpResponse Api::reload(const CallPtr& call) {
  // Whoever could ask for it could keep this machine busy with it.
  if (!options_.loopback && options_.token.empty())
    throw Refusal{403, "beyond this machine models are loaded again with a token only"};
  models_.reload([this, call](const Models::Reloaded& result) {
    if (result.stopped) return refuse(*call, {503, "the server is being stopped", "", 5});
    if (!result.failed.empty())
      return respond(*call,
                     error_answer(500, fmt::format("could not be loaded, and the one before is served: {}",
                                                   fmt::join(result.failed, ", "))));
    respond(*call, models(call));
  });
  return {0, "", ""};
}

}  // namespace lockstep::serve
