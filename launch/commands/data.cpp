// SPDX-License-Identifier: Apache-2.0
// `lockstep data get NAME` downloads a data set, `lockstep data make captioned_digits DIR` makes one.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "kernels/core/error.h"
#include "launch/commands/command.h"
#include "launch/commands/make_digits.h"
#include "launch/fetch/fetch.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command data_command;

namespace {

namespace po = boost::program_options;

constexpr int64_t kMostPictures = 10'000'000;

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
    say_styled(stderr, fmt::format("\r\x1b[K{}  {:.1f}{} MB", file, megabytes, of));
  }
  void arrived(const std::string& file, const std::string& from) {
    if (live_) say_styled(stderr, "\r\x1b[K");
    shown_ = -1;
    if (from.empty())
      print_out("{}  is there already\n", file);
    else
      print_out("{}  checked, from {}\n", file, from);
    std::fflush(stdout);
  }

 private:
  static constexpr int64_t kStep = 100'000;  // bytes between updates
  bool live_ = ::isatty(STDERR_FILENO) == 1;
  int64_t shown_ = -1;
};

// What `data get` downloads.
void get(const RemoteSet& set, std::string folder, FetchOptions options) {
  if (folder.empty()) folder = "data/" + set.name;
  Display display;
  options.progress = [&](const std::string& file, int64_t done, int64_t total) {
    display.progress(file, done, total);
  };
  options.arrived = [&](const std::string& file, const std::string& from) { display.arrived(file, from); };
  fetch(set, folder, options);
  print_out("{} lies in {}\n", set.name, folder);
}

void make(DigitsRequest request, const po::variables_map& vm) {
  if (request.folder.empty()) missing_argument(data_command, "the folder to make");
  if (!vm.count("count")) missing_argument(data_command, "--count, how many pictures");
  if (request.count < 1 || request.count > kMostPictures)
    throw Error(Exit::usage, "E_OPTION", fmt::format("data make: --count is 1 to {}", kMostPictures));
  if (request.split != "training" && request.split != "test")
    throw Error(Exit::usage, "E_OPTION", fmt::format("data make: no split '{}'", request.split))
        .hint("training or test");
  if (request.split == "test" && vm.count("seed"))
    throw Error(Exit::usage, "E_OPTION",
                "data make: --seed goes with --split training: test pictures are always the same");
  make_captioned_digits(request);
  print_out("{} pictures lie in {}\n", request.count, request.folder);
}

int run_data(const Arguments& arguments) {
  std::string action, name, folder;
  FetchOptions options;
  DigitsRequest digits;
  int64_t seed = 0;
  po::options_description visible("Options"), hidden;
  visible.add_options()("to", po::value(&folder)->value_name("DIR"),
                        "get: folder to put it in (default: data/NAME)")(
      "mirror", po::value(&options.mirrors)->value_name("URL")->composing(),
      "get: take the files from below this address; several are tried in turn")(
      "count", po::value(&digits.count)->value_name("N"), "make: how many pictures")(
      "seed", po::value(&seed)->value_name("N"), "make: of the job that would train on them (default: 0)")(
      "split", po::value(&digits.split)->default_value("training")->value_name("NAME"),
      "make: training, or test, whose pictures show what training never does, too")(
      "from", po::value(&digits.mnist)->default_value("configs/data/mnist")->value_name("DIR"),
      "make: where MNIST lies");
  hidden.add_options()("action", po::value(&action))("name", po::value(&name))("dir",
                                                                               po::value(&digits.folder));
  po::positional_options_description positional;
  positional.add("action", 1).add("name", 1).add("dir", 1);
  const std::string synopsis =
      fmt::format("get {} | make captioned_digits DIR --count N", fmt::join(set_names(), "|"));
  const auto vm = parse_arguments(data_command,
                                  {synopsis,
                                   "lockstep data get mnist --to data/mnist\n"
                                   "lockstep data make captioned_digits data/digits --count 60000",
                                   visible, hidden, positional},
                                  arguments);
  if (!vm) return 0;
  if (action.empty()) missing_argument(data_command, "what to do: get or make");
  if (action != "get" && action != "make")
    throw Error(Exit::usage, "E_OPTION", fmt::format("data: expected 'get' or 'make', found '{}'", action))
        .hint("`lockstep data --help` says how");
  const bool gets = action == "get";
  for (const char* option : {"to", "mirror", "dir", "count", "seed", "split", "from"}) {
    const bool of_get = option == std::string_view("to") || option == std::string_view("mirror");
    if (vm->count(option) && !(*vm)[option].defaulted() && of_get != gets)
      throw Error(Exit::usage, "E_OPTION",
                  option == std::string_view("dir")
                      ? fmt::format("data get: what is '{}'?", digits.folder)
                      : fmt::format("data: --{} goes with {}", option, of_get ? "get" : "make"))
          .hint("`lockstep data --help` says how");
  }
  if (name.empty())
    missing_argument(data_command, fmt::format("the data set's name: {}",
                                               gets ? fmt::format("{}", fmt::join(set_names(), ", "))
                                                    : "captioned_digits"));
  if (gets) {
    get(find_set(name), folder, options);
  } else {
    if (name != "captioned_digits")
      throw Error(Exit::usage, "E_DATASET_NAME",
                  fmt::format("data make: no data set '{}', but captioned_digits", name));
    if (seed < 0) throw Error(Exit::usage, "E_OPTION", "data make: --seed is at least 0");
    digits.seed = static_cast<uint64_t>(seed);
    make(digits, *vm);
  }
  return 0;
}

}  // namespace

const Command data_command{
    "data", "download a data set (mnist, fashion_mnist, cifar10), or make one (captioned_digits)", run_data};

}  // namespace lockstep
