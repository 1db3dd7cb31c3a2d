// SPDX-License-Identifier: Apache-2.0
// `lockstep bench serve URL`: what a server of models takes, and how long its clients wait.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "kernels/core/error.h"
#include "launch/commands/command.h"
#include "launch/serve/load.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command bench_command;

namespace {

// Counts by latency, in steps of a factor of two from a millisecond on.
std::string histogram(const serve::Load& load) {
  constexpr double kFirst = 0.001;
  std::vector<int64_t> counts;
  for (const double s : load.latencies) {
    const auto at = static_cast<size_t>(std::max(0.0, std::ceil(std::log2(s / kFirst))));
    if (counts.size() <= at) counts.resize(at + 1);
    ++counts[at];
  }
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  std::string text;
  size_t first = 0;
  while (counts[first] == 0) ++first;
  for (size_t i = first; i < counts.size(); ++i)
    text += fmt::format("  <= {:>7.0f} ms {:>9}  {}\n", 1e3 * kFirst * std::exp2(i), counts[i],
                        std::string(static_cast<size_t>((40 * counts[i] + most - 1) / most), '#'));
  return text;
}

void print(const serve::Load& load, const serve::LoadOptions& o) {
  const auto n = static_cast<double>(load.latencies.size());
  print_out("{}: {} clients, {:.1f} s\n", load.model, o.clients, load.seconds);
  print_out("requests/s  {:.1f}\n", n / load.seconds);
  if (load.pictures > 0) print_out("pictures/s  {:.2f}\n", static_cast<double>(load.pictures) / load.seconds);
  print_out("latency ms  p50 {:.2f}  p90 {:.2f}  p99 {:.2f}  max {:.2f}\n", 1e3 * load.quantile(0.5),
            1e3 * load.quantile(0.9), 1e3 * load.quantile(0.99), 1e3 * load.quantile(1));
  print_out("{}", histogram(load));
  int64_t errors = 0;
  for (const auto& [error, count] : load.errors) errors += count;
  print_out("answers     {}\nerrors      {}\n", load.latencies.size(), errors);
  for (const auto& [error, count] : load.errors) print_out("  {:>9}  {}\n", count, error);
}

int run_bench(const Arguments& arguments) {
  namespace po = boost::program_options;
  serve::LoadOptions o;
  std::string action, body;
  po::options_description visible("Options"), hidden;
  visible.add_options()("clients", po::value(&o.clients)->value_name("N"),
                        "clients, each with a connection, that ask as soon as they are answered (8)")(
      "seconds", po::value(&o.seconds)->value_name("S"), "how long they ask (10)")(
      "steps", po::value(&o.steps)->value_name("N"), "steps of each drawing; left out: the model's own")(
      "pictures", po::value(&o.pictures)->value_name("N"), "pictures of each request for drawings (1)")(
      "prompt", po::value(&o.prompt)->value_name("TEXT"),
      "what each asks a model for that reads text (a picture)")(
      "body", po::value(&body)->value_name("FILE"),
      "what each request sends; left out: a picture of the model's size for a classifier, JSON for a "
      "drawing")("type", po::value(&o.type)->value_name("TYPE"), "its Content-Type (application/json)")(
      "cacert", po::value(&o.authority)->value_name("FILE"),
      "whom to believe certificates from, in PEM form");
  hidden.add_options()("action", po::value(&action))("url", po::value(&o.url));
  po::positional_options_description positional;
  positional.add("action", 1).add("url", 1);
  const auto vm =
      parse_arguments(bench_command,
                      {"serve URL", "lockstep bench serve http://127.0.0.1:8080 --clients 8 --seconds 20",
                       visible, hidden, positional},
                      arguments);
  if (!vm) return 0;
  const auto expect = [](bool holds, const std::string& message) {
    if (!holds) throw Error(Exit::usage, "E_OPTION", "bench: " + message);
  };
  if (action.empty()) missing_argument(bench_command, "what to measure: serve");
  expect(action == "serve", fmt::format("expected 'serve', found '{}'", action));
  if (o.url.empty()) missing_argument(bench_command, "the server's URL");
  expect(o.clients >= 1 && o.clients <= 1024, "--clients is 1 to 1024");
  expect(o.seconds > 0 && o.seconds <= 86400, "--seconds is above 0, and 86400 at most");
  expect(!vm->count("steps") || (o.steps >= 1 && o.steps <= 1000), "--steps is 1 to 1000");
  expect(o.pictures >= 1 && o.pictures <= 4096, "--pictures is 1 to 4096");
  expect(!vm->count("type") || vm->count("body"), "--type is that of --body");
  expect(!vm->count("body") || !(vm->count("steps") || vm->count("pictures") || vm->count("prompt")),
         "--steps, --pictures and --prompt are said in --body");
  if (!body.empty()) {
    o.body = std::string(MappedFile(body).text());
    if (o.type.empty()) o.type = "application/json";
  }
  if (const char* token = std::getenv("LOCKSTEP_SERVE_TOKEN")) o.token = token;
  print(serve::put_load(o), o);
  return 0;
}

}  // namespace

const Command bench_command{"bench", "measure a server of models", run_bench};

}  // namespace lockstep
