// SPDX-License-Identifier: Apache-2.0
// `lockstep data get NAME`: downloads a data set.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "kernels/core/error.h"
#include "launch/commands/command.h"
#include "launch/fetch/fetch.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command data_command;

namespace {

std::vector<std::string> set_names() {
  std::vector<std::string> names;
  for (const RemoteSet& set : remote_sets()) names.push_back(set.name);
  return names;
}

const RemoteSet& find_set(const std::string& name) {
  for (const RemoteSet& set : remote_sets())
    if (set.name == name) return set;
  const std::string near = nearest(name, set_names());
  throw Error(Exit::usage, "E_DATASET_NAME",
              fmt::format("data get: no data set '{}', but {}", name, fmt::join(set_names(), ", ")))
      .hint(near.empty() ? "`lockstep data --help` says how" : fmt::format("did you mean '{}'?", near));
}

// On a terminal one live line a file; elsewhere only what has arrived.
class Display {
 public:
  void progress(const std::string& file, int64_t done, int64_t total) {
    if (!live_ || done / kStep == shown_) return;
    shown_ = done / kStep;
    const double megabytes = 1e-6 * static_cast<double>(done);
    const std::string of = total > 0 ? fmt::format(" of {:.1f}", 1e-6 * static_cast<double>(total)) : "";
    say(stderr, fmt::format("\r\x1b[K{}  {:.1f}{} MB", file, megabytes, of));
  }
  void arrived(const std::string& file, const std::string& from) {
    if (live_) say(stderr, "\r\x1b[K");
    shown_ = -1;
    if (from.empty())
      fmt::print("{}  is there already\n", file);
    else
      fmt::print("{}  checked, from {}\n", file, from);
    std::fflush(stdout);
  }

 private:
  static constexpr int64_t kStep = 100'000;  // bytes between updates
  bool live_ = ::isatty(STDERR_FILENO) == 1;
  int64_t shown_ = -1;
};

int run_data(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string action, name, folder;
  FetchOptions options;
  po::options_description visible("Options"), hidden;
  visible.add_options()("to", po::value(&folder)->value_name("DIR"),
                        "folder to put it in (default: data/NAME)")(
      "mirror", po::value(&options.mirrors)->value_name("URL")->composing(),
      "take the files from below this address; several are tried in turn");
  hidden.add_options()("action", po::value(&action))("name", po::value(&name));
  po::positional_options_description positional;
  positional.add("action", 1).add("name", 1);
  const std::string synopsis = fmt::format("get {}", fmt::join(set_names(), "|"));
  if (!parse_arguments(data_command,
                       {synopsis, "lockstep data get mnist --to data/mnist", visible, hidden, positional},
                       arguments))
    return 0;
  if (action.empty()) missing_argument(data_command, "what to do: get");
  if (action != "get")
    throw Error(Exit::usage, "E_OPTION", fmt::format("data: expected 'get', found '{}'", action))
        .hint("`lockstep data --help` says how");
  if (name.empty())
    missing_argument(data_command, "the data set's name: " + fmt::format("{}", fmt::join(set_names(), ", ")));
  const RemoteSet& set = find_set(name);
  if (folder.empty()) folder = "data/" + set.name;

  Display display;
  options.progress = [&](const std::string& file, int64_t done, int64_t total) {
    display.progress(file, done, total);
  };
  options.arrived = [&](const std::string& file, const std::string& from) { display.arrived(file, from); };
  fetch(set, folder, options);
  fmt::print("{} lies in {}\n", set.name, folder);
  return 0;
}

}  // namespace

const Command data_command{"data", "download a data set: mnist, fashion_mnist, cifar10", run_data};

}  // namespace lockstep
