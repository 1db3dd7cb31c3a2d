// SPDX-License-Identifier: Apache-2.0
// `lockstep man`: the manual page, from the tables that --help, --help-keys and the exit codes come from.
#include <fmt/format.h>

#include <sstream>

#include "launch/commands/command.h"
#include "launch/commands/version.h"
#include "launch/job/keys.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command man_command;

namespace {

struct Variable {
  const char *name, *meaning;
};
constexpr Variable kEnvironment[] = {
    {"LOCKSTEP_CPU",
     "avx2, avx512, avx512_bf16 or amx: no kernel uses instructions beyond these. What the processor lacks "
     "is an "
     "error (78)."},
    {"LOCKSTEP_RANKS_PER_HOST",
     "So many ranks count as one host: those of one host sum gradients in shared memory, hosts among "
     "themselves "
     "over MPI. 1 sends everything over MPI."},
    {"LOCKSTEP_SERVE_TOKEN", "What lockstep serve asks its clients for, where --token-file names no file."},
    {"SAGEMAKER_BASE_DIR", "What lockstep sagemaker takes for /opt/ml."},
    {"XDG_CACHE_HOME",
     "Kernel choices and decoded data sets are kept in lockstep below it, or below ~/.cache. They may be "
     "deleted "
     "at any time."},
    {"NO_COLOR", "Set to anything: no colours."},
};

// Text for roff: no line of it is a request, and dashes are those that one can type.
std::string roff(const std::string& text) {
  std::string out;
  bool line_starts = true;
  for (const char c : text) {
    if (line_starts && (c == '.' || c == '\'')) out += "\\&";
    line_starts = c == '\n';
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}

std::string tagged(const std::string& tag, const std::string& text) {
  return fmt::format(".TP\n\\fB{}\\fR\n{}\n", roff(tag), roff(text));
}

std::string section(const std::string& title) { return fmt::format(".SH {}\n", title); }

std::string of_command(const Command& command) {
  std::string out;
  command.run({{}, [&](const Usage& usage) {
                 out += fmt::format(".SS lockstep {} {}\n{}.\n", command.name, roff(usage.synopsis),
                                    roff(command.summary));
                 for (const auto& option : usage.visible.options()) {
                   std::string tag = "--" + option->long_name();
                   if (const std::string value = option->format_parameter(); !value.empty())
                     tag += " " + value;
                   out += tagged(tag, option->description());
                 }
                 out += tagged("--help", "This command's options.");
                 out += ".PP\nFor example:\n.PP\n.nf\n";
                 std::istringstream lines(usage.example);
                 for (std::string line; std::getline(lines, line);)
                   out += ".RS\n" + roff(line.substr(line.find_first_not_of(' '))) + "\n.RE\n";
                 out += ".fi\n";
               }});
  return out;
}

std::string job_keys() {
  std::string out;
  for (const job::ReferenceSection& part : job::reference_sections()) {
    out += fmt::format(".SS {}\n{}\n", roff(part.title), roff(part.note));
    for (const job::ReferenceRow& row : part.rows) {
      std::string text = row.help;
      if (!row.type.empty()) text = fmt::format("({}) {}", row.type, text);
      if (row.fallback == "required")
        text += " Required.";
      else if (!row.fallback.empty())
        text += " Left out: " + row.fallback + ".";
      if (!row.example.empty()) text += " For example " + row.example;
      out += tagged(row.key, text);
    }
  }
  return out;
}

std::string page() {
  std::string out = fmt::format(
      ".\\\" Made by `lockstep man`.\n.TH LOCKSTEP 1 \"\" \"lockstep {}\" \"User Commands\"\n.nh\n.ad l\n",
      version());
  out += section("NAME") + "lockstep \\- train convolutional networks and diffusion UNets on many ranks\n";
  out += section("SYNOPSIS") + ".B lockstep\n.I COMMAND\n[...]\n";
  out +=
      section("DESCRIPTION") +
      roff(
          "lockstep reads a job, a YAML file that describes model, data and hyperparameters, and trains it "
          "on "
          "as many ranks as the job says, on CPUs or GPUs. Gradients meet in an allreduce. The run leaves a "
          "folder with the job as it was run, metrics, log, checkpoints and weights.\n");
  out += section("COMMANDS");
  for (const Command& command : commands()) out += of_command(command);
  out += tagged("lockstep --version", "The release, and the commit that it was built from.");
  out += tagged("lockstep --help", "The list of commands.");
  out += section("JOB FILE") + roff("A job file may say:\n") + job_keys();
  out += section("EXIT STATUS");
  for (const auto& [code, meaning] : exit_meanings()) out += tagged(std::to_string(code), meaning);
  out += section("ENVIRONMENT");
  for (const auto& [name, meaning] : kEnvironment) out += tagged(name, meaning);
  out += section("SEE ALSO") + ".BR mpirun (1)\n";
  return out;
}

int run_man(const Arguments& arguments) {
  if (!parse_arguments(
          man_command,
          {"", "lockstep man | man -l -", boost::program_options::options_description("Options"), {}, {}},
          arguments))
    return 0;
  print_out("{}", page());
  return 0;
}

}  // namespace

const Command man_command{"man", "print the manual page", run_man};

}  // namespace lockstep
