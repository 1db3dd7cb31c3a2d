// SPDX-License-Identifier: Apache-2.0
// `lockstep serve RUN|FOLDER`: a trained model behind HTTP.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "launch/commands/command.h"
#include "launch/serve/api.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command serve_command;

namespace {

constexpr const char* kTokenVariable = "LOCKSTEP_SERVE_TOKEN";

struct ServeOptions {
  std::string folder, host = "127.0.0.1", token_file;
  int port = 8080;
  int64_t queue = 64, batch = 16, pictures = 16, megabytes = 6;
  double seconds = 60, drain_seconds = 30;
};

// The first line of the file, or the variable: never a word of the command line, which others can read.
std::string token_of(const ServeOptions& o) {
  std::string token;
  if (!o.token_file.empty()) {
    token = read_text_file(o.token_file, 4096);
    token = token.substr(0, token.find('\n'));
    if (!token.empty() && token.back() == '\r') token.pop_back();
    if (token.empty())
      throw Error(Exit::config, "E_SERVE_TOKEN", "the first line is empty").at("file", o.token_file);
  } else if (const char* given = std::getenv(kTokenVariable)) {
    token = given;
  }
  return token;
}

bool is_loopback(const std::string& host) { return host == "::1" || host.starts_with("127."); }

// SIGTERM and SIGINT come to this thread alone; threads that are started later inherit the mask.
sigset_t block_stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

bool stop_is_asked_for(const sigset_t& signals, std::chrono::milliseconds within) {
  timespec time{};
  time.tv_sec = within.count() / 1000, time.tv_nsec = within.count() % 1000 * 1'000'000;
  return sigtimedwait(&signals, nullptr, &time) > 0;
}

int serve_until_stopped(const ServeOptions& o, const std::string& token) {
  using namespace std::chrono_literals;
  using serve::Clock;
  const sigset_t signals = block_stop_signals();
  serve::ServiceLimits limits;
  limits.waiting = o.queue, limits.batch = o.batch, limits.pictures = o.pictures, limits.seconds = o.seconds;
  serve::Service service(o.folder, limits);
  serve::Api api(service, {token, is_loopback(o.host), o.megabytes});
  serve::HttpLimits http;
  http.body_bytes = o.megabytes << 20;
  serve::HttpServer server(
      o.host, o.port, http,
      [&](serve::HttpRequest r, const std::shared_ptr<serve::Reply>& reply) { api(std::move(r), reply); });
  bool stop = false;
  while (!stop && service.state() == serve::Service::State::opening) stop = stop_is_asked_for(signals, 20ms);
  if (service.state() == serve::Service::State::failed) service.rethrow_failure();
  if (!stop)
    say(stdout,
        fmt::format("{} is served on http://{}:{}/\n", o.folder,
                    o.host.find(':') == std::string::npos ? o.host : "[" + o.host + "]", server.port()));
  while (!stop) stop = stop_is_asked_for(signals, 60s);

  // Health checks fail from here on, so that nobody sends more; what is there is answered.
  const auto limit = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(o.drain_seconds));
  api.drain();
  service.drain();
  server.drain();
  while (!service.idle() && Clock::now() < limit)
    if (stop_is_asked_for(signals, 20ms)) break;  // a second one: at once
  service.stop();                                 // before the server, to which its answers go
  server.finish(2);
  return 0;
}

int run_serve(const Arguments& arguments) {
  namespace po = boost::program_options;
  ServeOptions o;
  po::options_description visible("Options"), hidden;
  visible.add_options()("host", po::value(&o.host)->value_name("ADDRESS"),
                        "where to listen (127.0.0.1); another machine's clients need 0.0.0.0, and a token")(
      "port", po::value(&o.port)->value_name("N"), "port (8080); 0: any free one")(
      "token-file", po::value(&o.token_file)->value_name("FILE"),
      "its first line is asked for as `Authorization: Bearer`; else that of LOCKSTEP_SERVE_TOKEN")(
      "no-token", "listen beyond this machine without one")("queue", po::value(&o.queue)->value_name("N"),
                                                            "requests that may wait (64)")(
      "batch", po::value(&o.batch)->value_name("N"), "samples of one evaluation of the model (16)")(
      "pictures", po::value(&o.pictures)->value_name("N"), "pictures of a request at most (16)")(
      "max-body-mb", po::value(&o.megabytes)->value_name("N"), "a request's body at most (6)")(
      "seconds", po::value(&o.seconds)->value_name("S"),
      "from a request to its answer at most (60); what would take longer is refused at once")(
      "drain-seconds", po::value(&o.drain_seconds)->value_name("S"),
      "on SIGTERM, for requests that are there (30)");
  hidden.add_options()("folder", po::value(&o.folder));
  po::positional_options_description positional;
  positional.add("folder", 1);
  const auto vm = parse_arguments(
      serve_command,
      {"RUN|FOLDER", "lockstep serve runs/mnist-cnn-001 --port 8080", visible, hidden, positional},
      arguments);
  if (!vm) return 0;
  if (o.folder.empty()) missing_argument(serve_command, "RUN|FOLDER");
  const auto expect = [](bool holds, const char* message) {
    if (!holds) throw Error(Exit::usage, "E_OPTION", std::string("serve: ") + message);
  };
  expect(o.port >= 0 && o.port <= 65535, "--port is 0 to 65535");
  expect(o.queue >= 1 && o.queue <= 1 << 20, "--queue is 1 to 1048576");
  expect(o.batch >= 1 && o.batch <= 4096, "--batch is 1 to 4096");
  expect(o.pictures >= 1 && o.pictures <= 4096, "--pictures is 1 to 4096");
  expect(o.megabytes >= 1 && o.megabytes <= 1024, "--max-body-mb is 1 to 1024");
  expect(o.seconds > 0 && o.seconds <= 86400, "--seconds is above 0, and 86400 at most");
  expect(o.drain_seconds >= 0 && o.drain_seconds <= 86400, "--drain-seconds is 0 to 86400");
  const std::string token = token_of(o);
  if (token.empty() && !is_loopback(o.host) && !vm->count("no-token"))
    throw Error(Exit::config, "E_SERVE_TOKEN",
                fmt::format("serve: on {} anybody who reaches this machine could ask", o.host))
        .hint("--token-file FILE, or --no-token where that is meant");
  return serve_until_stopped(o, token);
}

}  // namespace

const Command serve_command{"serve", "a trained model behind HTTP", run_serve};

}  // namespace lockstep
