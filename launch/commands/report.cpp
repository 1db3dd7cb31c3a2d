// SPDX-License-Identifier: Apache-2.0
// `lockstep report RUN...`: a page about runs.
#include <fmt/format.h>

#include "launch/commands/command.h"
#include "launch/report/page.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

extern const Command report_command;

namespace {

int run_report(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::vector<std::string> folders;
  std::string out;
  po::options_description visible("Options"), hidden;
  visible.add_options()("out", po::value(&out)->default_value("report.html")->value_name("FILE"), "the page");
  hidden.add_options()("run", po::value(&folders));
  po::positional_options_description positional;
  positional.add("run", -1);
  const auto vm =
      parse_arguments(report_command,
                      {"RUN...", "lockstep report runs/mnist-cnn-001 runs/mnist-cnn-002 --out both.html",
                       visible, hidden, positional},
                      arguments);
  if (!vm) return 0;
  if (folders.empty()) missing_argument(report_command, "RUN");
  if (folders.size() > report::kMostRuns)
    throw Error(
        Exit::usage, "E_OPTION",
        fmt::format("report: found {} runs, and a page has {} at most", folders.size(), report::kMostRuns));
  std::vector<report::RunRecord> runs;
  for (const std::string& folder : folders) runs.push_back(report::read_run_record(folder));
  write_file_atomically(out, report::page(runs));
  print_out("{}\n", out);
  return 0;
}

}  // namespace

const Command report_command{"report", "a page with the curves, samples and job of runs", run_report};

}  // namespace lockstep
