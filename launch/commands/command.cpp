// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <numeric>
#include <thread>

#include "kernels/core/cpu_target.h"
#include "kernels/core/error.h"
#include "launch/commands/report_error.h"
#include "launch/commands/version.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/together.h"
#include "runtime/device/memory.h"
#include "runtime/files/host_name.h"
#include "runtime/files/path.h"
#include "runtime/telemetry/say.h"

namespace po = boost::program_options;

namespace lockstep {
namespace {

std::string overview() {
  std::string s =
      "Trains convolutional networks and diffusion UNets on many ranks in lock step.\n\n"
      "Usage: lockstep COMMAND [...]\n\nCommands:\n";
  for (const auto& c : commands()) s += fmt::format("  {:<10} {}\n", c.name, c.summary);
  s += "\n`lockstep COMMAND --help` says more. Exit codes:\n";
  for (const auto& [code, meaning] : exit_meanings()) s += fmt::format("  {:<10} {}\n", code, meaning);
  return s;
}

int dispatch(const std::vector<std::string>& words) {
  if (words.empty()) {
    say(stderr, overview());
    return static_cast<int>(Exit::usage);
  }
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    print_out("{}", overview());
    return 0;
  }
  if (words[0] == "--version") {
    print_out("lockstep {}\n", version());
    return 0;
  }
  std::vector<std::string> names;
  for (const auto& c : commands()) {
    if (words[0] == c.name) return c.run({{words.begin() + 1, words.end()}, {}});
    names.emplace_back(c.name);
  }
  const std::string near = nearest(words[0], names);
  throw Error(Exit::usage, "E_COMMAND", fmt::format("no command '{}'", words[0]))
      .hint(near.empty() ? "`lockstep --help` lists them" : fmt::format("did you mean '{}'?", near));
}

// A file that is opened later must not get the descriptor of a closed standard stream. Reading alone: writing fails.
void occupy_standard_descriptors() {
  for (int d = 0; d <= 2; ++d)
    if (::fcntl(d, F_GETFD) < 0 && ::open("/dev/null", O_RDONLY) != d) return;
}

// A shell leaves ~ as it is behind "--output=".
void expand_path(const Command& command, const po::options_description& known, po::option& option) {
  const auto* described = known.find_nothrow(option.string_key, false);
  if (!described || option.value.size() != 1) return;
  const std::string kind = described->format_parameter();
  if (kind != "DIR" && kind != "FOLDER" && kind != "FILE" && kind != "RUN2") return;
  std::string& path = option.value.front();
  if (const char* why = why_not_at_home(path))
    throw Error(Exit::usage, "E_OPTION",
                fmt::format("{}: --{}={} {}", command.name, option.string_key, path, why));
  path = at_home(path);
}

int run_command(int argc, char** argv) {
  try {
    apply_cpu_level_from_environment();
    return dispatch({argv + 1, argv + argc});
  } catch (const Error& e) {
    // What fails before the ranks have met fails as a rule on each alike: rank 0 says so, leaves first, and a launcher then
    // ends the others. Whoever is still here has failed alone.
    const auto environment = launcher_environment();
    if (!environment.present || environment.rank == 0) {
      report_error(e.what());
    } else {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      Error mine = e;
      mine.add_place("rank", std::to_string(environment.rank));
      mine.add_place("host", host_name());
      report_error(mine.what());
    }
    return e.code();
  } catch (const std::bad_alloc&) {
    const Error e = out_of_memory();
    report_error(e.what());
    return e.code();
  } catch (const std::exception& e) {
    report_error(fmt::format("error[E_INTERNAL]: {}", e.what()));
    return static_cast<int>(Exit::internal);
  }
}

}  // namespace

const std::vector<ExitMeaning>& exit_meanings() {
  static const std::vector<ExitMeaning> all = {
      {0, "done"},
      {64, "the command line is wrong"},
      {65, "data, or a checkpoint, is damaged or does not fit"},
      {66, "a file or folder that should be read is missing"},
      {69,
       "a service that is needed (mpirun's ranks, NCCL) did not start, a rank was lost before a step was "
       "done, or a port is taken"},
      {70, "a bug of lockstep, or a failure inside a library"},
      {73, "a file or folder cannot be created, or another job holds it"},
      {74, "reading or writing failed, the disk is full, or memory ran out"},
      {75, "interrupted, or a rank was lost: start again with --resume=auto"},
      {76, "the ranks disagree about the job, the data or the plan"},
      {77, "no permission to read a file"},
      {78, "the job file is wrong, or asks for what this build or machine lacks"},
      {80, "a loss, weight or result is not finite: the training diverged"},
  };
  return all;
}

int run_command_line(int argc, char** argv) {
  // Whoever reads our output may leave: a write then fails with EPIPE, which is an error like another.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f`: EFBIG
  occupy_standard_descriptors();
  int code = run_command(argc, argv);
  const bool lost = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  if (code == 0 && lost && !went_on_without(stdout)) {
    report_error(output_error().what());
    code = output_error().code();
  }
  return code;
}

std::optional<po::variables_map> parse_arguments(const Command& command, const Usage& usage,
                                                 const Arguments& arguments) {
  if (arguments.describe) {
    arguments.describe(usage);
    return std::nullopt;
  }
  po::options_description all, help;
  help.add_options()("help,h", "this text");
  all.add(usage.visible).add(usage.hidden).add(help);
  po::variables_map vm;
  try {
    auto parsed = po::command_line_parser(arguments.words).options(all).positional(usage.positional).run();
    for (po::option& option : parsed.options) expand_path(command, all, option);
    po::store(parsed, vm);
    if (vm.count("help")) {
      std::ostringstream text;
      text << usage.visible;
      print_out("{}: {}\n\nUsage: lockstep {} {} [options]\n\n{}\nExample:\n  {}\n", command.name,
                command.summary, command.name, usage.synopsis, text.str(), usage.example);
      return std::nullopt;
    }
    po::notify(vm);
  } catch (const po::unknown_option& e) {
    std::vector<std::string> names = {"--help"};
    for (const auto& o : usage.visible.options()) names.push_back("--" + o->long_name());
    const std::string near = nearest(e.get_option_name(), names);
    throw Error(Exit::usage, "E_OPTION", fmt::format("{}: no option '{}'", command.name, e.get_option_name()))
        .hint(near.empty() ? fmt::format("`lockstep {} --help` lists them", command.name)
                           : fmt::format("did you mean '{}'?", near));
  } catch (const po::error& e) {
    throw Error(Exit::usage, "E_OPTION", fmt::format("{}: {}", command.name, e.what()))
        .hint(fmt::format("`lockstep {} --help` says how", command.name));
  }
  return vm;
}

void missing_argument(const Command& command, const std::string& what) {
  throw Error(Exit::usage, "E_OPTION", fmt::format("{}: {} is missing", command.name, what))
      .hint(fmt::format("`lockstep {} --help` says how", command.name));
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, word.size() / 2) + 1;
  for (const auto& c : candidates) {
    std::vector<size_t> row(c.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < word.size(); ++i) {
      size_t diagonal = row[0]++;
      for (size_t j = 0; j < c.size(); ++j) {
        const size_t substitute = diagonal + (word[i] == c[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({substitute, row[j] + 1, row[j + 1] + 1});
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = c;
  }
  return best;
}

}  // namespace lockstep
