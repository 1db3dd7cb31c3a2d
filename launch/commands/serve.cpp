// SPDX-License-Identifier: Apache-2.0
// `lockstep serve RUN|FOLDER`: trained models behind HTTP.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include "launch/commands/command.h"
#include "launch/serve/server.h"
#include "runtime/files/path.h"

namespace lockstep {

extern const Command serve_command;

namespace {

constexpr const char* kTokenVariable = "LOCKSTEP_SERVE_TOKEN";

// The first line of the file, or the variable: never a word of the command line, which others can read.
std::string token_of(const std::string& file) {
  std::string token;
  if (!file.empty()) {
    token = read_text_file(file, 4096);
    token = token.substr(0, token.find('\n'));
    if (!token.empty() && token.back() == '\r') token.pop_back();
    if (token.empty()) throw Error(Exit::config, "E_SERVE_TOKEN", "the first line is empty").at("file", file);
  } else if (const char* given = std::getenv(kTokenVariable)) {
    token = given;
  }
  return token;
}

void expect_option(bool holds, const std::string& message) {
  if (!holds) throw Error(Exit::usage, "E_OPTION", "serve: " + message);
}

// As a browser says it: scheme, host, perhaps a port, and nothing behind.
bool is_origin(const std::string& text) {
  const size_t at = text.starts_with("https://") ? 8 : text.starts_with("http://") ? 7 : text.size();
  return at < text.size() &&
         std::all_of(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '-' || c == ':' || c == '[' || c == ']';
         });
}

// "NAME=FOLDER"
serve::ModelSource model_source(const std::string& word) {
  const size_t at = word.find('=');
  const std::string name = word.substr(0, at);
  expect_option(at != std::string::npos && at + 1 < word.size(),
                "--model is NAME=FOLDER, not '" + word + "'");
  const bool fits =
      !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_';
      });
  expect_option(fits && name != "reload",
                "a model's name is letters, digits and .-_, and not 'reload': '" + name + "'");
  if (const char* why = why_not_at_home(word.substr(at + 1)))
    throw Error(Exit::usage, "E_OPTION", fmt::format("serve: --model={} {}", word, why));
  return {name, at_home(word.substr(at + 1))};
}

// "64x32", width and height.
serve::PictureSize picture_size(const std::string& word) {
  serve::PictureSize size;
  const char* end = word.data() + word.size();
  const auto [x, wrong] = std::from_chars(word.data(), end, size.width);
  if (wrong == std::errc() && x != end && *x == 'x') {
    const auto [rest, bad] = std::from_chars(x + 1, end, size.height);
    if (bad == std::errc() && rest == end && size.width >= 1 && size.height >= 1 && size.width <= 4096 &&
        size.height <= 4096)
      return size;
  }
  throw Error(Exit::usage, "E_OPTION", "serve: --size is WIDTHxHEIGHT, 1 to 4096 each, not '" + word + "'");
}

int run_serve(const Arguments& arguments) {
  namespace po = boost::program_options;
  serve::ServerOptions o;
  std::string folder, token_file;
  std::vector<std::string> models, sizes;
  serve::TlsFiles tls;
  po::options_description visible("Options"), hidden;
  visible.add_options()("host", po::value(&o.host)->value_name("ADDRESS"),
                        "where to listen (127.0.0.1); another machine's clients need 0.0.0.0, and a token")(
      "port", po::value(&o.port)->value_name("N"), "port (8080); 0: any free one")(
      "model", po::value(&models)->value_name("NAME=FOLDER")->composing(),
      "a model by a name that requests choose it by; several are served beside each other")(
      "token-file", po::value(&token_file)->value_name("FILE"),
      "its first line is asked for as `Authorization: Bearer`; else that of LOCKSTEP_SERVE_TOKEN")(
      "cert", po::value(&tls.certificate)->value_name("FILE"),
      "certificate for HTTPS, in PEM form, with those that lead to it; read again on SIGHUP")(
      "key", po::value(&tls.key)->value_name("FILE"), "its key, in PEM form without a passphrase")(
      "no-token", "listen beyond this machine without one")(
      "queue", po::value(&o.limits.waiting)->value_name("N"), "requests that may wait (64)")(
      "batch", po::value(&o.limits.batch)->value_name("N"), "samples of one evaluation of the model (16)")(
      "per-client", po::value(&o.api.per_client)->value_name("N"),
      "requests of one address at once, more are refused with 429 (0: any number)")(
      "cors", po::value(&o.api.origins)->value_name("ORIGIN")->composing(),
      "whose pages may ask from a browser, as https://example.org; several may be given")(
      "pictures", po::value(&o.limits.pictures)->value_name("N"), "pictures of a request at most (16)")(
      "size", po::value(&sizes)->value_name("WIDTHxHEIGHT")->composing(),
      "a size of pictures that painters draw, the first where a request says none; several may be given "
      "(their own)")("max-body-mb", po::value(&o.api.body_megabytes)->value_name("N"),
                     "a request's body at most (6)")(
      "seconds", po::value(&o.limits.seconds)->value_name("S"),
      "from a request to its answer at most (60); what would take longer is refused at once")(
      "drain-seconds", po::value(&o.drain_seconds)->value_name("S"),
      "on SIGTERM, for requests that are there (30)");
  hidden.add_options()("folder", po::value(&folder));
  po::positional_options_description positional;
  positional.add("folder", 1);
  const auto vm = parse_arguments(serve_command,
                                  {"RUN|FOLDER",
                                   "lockstep serve runs/mnist-cnn-001 --port 8080\n"
                                   "lockstep serve --model digits=runs/mnist-cnn-001 --model painter=unet",
                                   visible, hidden, positional},
                                  arguments);
  if (!vm) return 0;
  if (!folder.empty()) o.models.push_back({serve::model_name(folder), folder});
  for (const std::string& word : models) o.models.push_back(model_source(word));
  if (o.models.empty()) missing_argument(serve_command, "RUN|FOLDER");
  for (const auto& m : o.models)
    expect_option(std::count_if(o.models.begin(), o.models.end(),
                                [&](const serve::ModelSource& other) { return other.name == m.name; }) == 1,
                  "two models have the name '" + m.name + "'");
  for (const std::string& word : sizes) {
    o.limits.sizes.push_back(picture_size(word));
    expect_option(std::count(o.limits.sizes.begin(), o.limits.sizes.end(), o.limits.sizes.back()) == 1,
                  "--size " + word + " is given twice");
  }
  expect_option(o.port >= 0 && o.port <= 65535, "--port is 0 to 65535");
  expect_option(o.limits.waiting >= 1 && o.limits.waiting <= 1 << 20, "--queue is 1 to 1048576");
  expect_option(o.limits.batch >= 1 && o.limits.batch <= 4096, "--batch is 1 to 4096");
  expect_option(o.limits.pictures >= 1 && o.limits.pictures <= 4096, "--pictures is 1 to 4096");
  expect_option(o.api.body_megabytes >= 1 && o.api.body_megabytes <= 1024, "--max-body-mb is 1 to 1024");
  expect_option(o.limits.seconds > 0 && o.limits.seconds <= 86400, "--seconds is above 0, and 86400 at most");
  expect_option(o.drain_seconds >= 0 && o.drain_seconds <= 86400, "--drain-seconds is 0 to 86400");
  expect_option(tls.certificate.empty() == tls.key.empty(), "--cert and --key go together");
  if (!tls.certificate.empty()) o.tls = tls;
  expect_option(o.api.per_client >= 0 && o.api.per_client <= 1 << 20, "--per-client is 0 to 1048576");
  for (const std::string& origin : o.api.origins)
    expect_option(is_origin(origin), "--cors is an origin as https://example.org, not '" + origin + "'");
  o.api.token = token_of(token_file);
  if (o.api.token.empty() && !serve::is_loopback(o.host) && !vm->count("no-token"))
    throw Error(Exit::config, "E_SERVE_TOKEN",
                fmt::format("serve: on {} anybody who reaches this machine could ask", o.host))
        .hint("--token-file FILE, or --no-token where that is meant");
  serve::serve_until_stopped(o);
  return 0;
}

}  // namespace

const Command serve_command{"serve", "trained models behind HTTP", run_serve, true};

}  // namespace lockstep
