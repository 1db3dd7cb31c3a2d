// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/server.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <csignal>

#include "launch/commands/report_error.h"
#include "launch/serve/api.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/say.h"

namespace lockstep::serve {
namespace {

// They come to this thread alone; threads that are started later inherit the mask.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// 0: none within this time.
int next_signal(const sigset_t& signals, std::chrono::milliseconds within) {
  timespec time{};
  time.tv_sec = within.count() / 1000, time.tv_nsec = within.count() % 1000 * 1'000'000;
  return std::max(0, sigtimedwait(&signals, nullptr, &time));
}

bool asks_to_stop(int signal) { return signal == SIGTERM || signal == SIGINT; }

void say_what_was_reloaded(const Models::Reloaded& result) {
  if (result.stopped) return;
  say(stdout, result.failed.empty() ? "the models were loaded again\n"
                                    : fmt::format("could not be loaded, and the one before is served: {}\n",
                                                  fmt::join(result.failed, ", ")));
}

void reload(Models& models, HttpServer& server) {
  try {
    server.renew_tls();
  } catch (const Error& e) {
    report_error(e.what());
  }
  models.reload(say_what_was_reloaded);
}

void expect_a_painter(const ServerOptions& o, const Models& models) {
  const auto all = models.all();
  if (o.limits.sizes.empty() ||
      std::ranges::any_of(all, [](const Served& s) { return s.service->model().diffusion(); }))
    return;
  throw Error(Exit::config, "E_SERVE_SIZE", "--size: nothing that is served draws pictures");
}

}  // namespace

bool is_loopback(const std::string& host) { return host == "::1" || host.starts_with("127."); }

std::string model_name(const std::string& folder) {
  std::string path = absolute_path(folder);
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  std::string name = path.substr(path.rfind('/') + 1);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-') c = '_';
  return name.empty() ? "model" : name;
}

void serve_until_stopped(const ServerOptions& o) {
  using namespace std::chrono_literals;
  const sigset_t signals = block_signals();
  Models models(o.models, o.limits);
  ApiOptions options = o.api;
  options.loopback = is_loopback(o.host);
  Api api(models, options);
  HttpLimits http;
  http.body_bytes = o.api.body_megabytes << 20;
  HttpServer server(
      o.host, o.port, http,
      [&](HttpRequest r, const std::shared_ptr<Reply>& reply) { api(std::move(r), reply); }, o.tls);
  bool stop = false;
  while (!stop && models.state() == Service::State::opening) stop = asks_to_stop(next_signal(signals, 20ms));
  if (models.state() == Service::State::failed) models.rethrow_failure();
  if (!stop) expect_a_painter(o, models);
  const std::string url =
      fmt::format("{}://{}:{}/", o.tls ? "https" : "http",
                  o.host.find(':') == std::string::npos ? o.host : "[" + o.host + "]", server.port());
  for (const ModelSource& m : o.models)
    if (!stop) say(stdout, fmt::format("{} is served on {}\n", m.folder, url));
  while (!stop) {
    const int signal = next_signal(signals, 60s);
    stop = asks_to_stop(signal);
    if (signal == SIGHUP) reload(models, server);
  }

  // Health checks fail from here on, so that nobody sends more; what is there is answered.
  const auto limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(o.drain_seconds));
  api.drain();
  models.drain();
  server.drain();
  while (!models.idle() && Clock::now() < limit)
    if (asks_to_stop(next_signal(signals, 20ms))) break;  // a second one: at once
  models.stop();                                          // before the server, to which its answers go
  server.finish(2);
}

}  // namespace lockstep::serve
