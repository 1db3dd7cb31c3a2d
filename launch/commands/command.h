// SPDX-License-Identifier: Apache-2.0
// The commands of `lockstep`, and what they share. A new command: a file in this folder and a line in
// commands.cpp.
#pragma once

#include <boost/program_options.hpp>
#include <optional>
#include <string>
#include <vector>

namespace lockstep {

struct Command {
  const char* name;
  const char* summary;                                    // one line
  int (*run)(const std::vector<std::string>& arguments);  // the exit code; throws Error
};

const std::vector<Command>& commands();

// Runs the command that argv names; prints help; turns every Error into its message on stderr and its exit
// code.
int run_command_line(int argc, char** argv);

// Parses a command's arguments. nullopt: --help was asked for and printed. Errors: usage (64), with the
// nearest option. `positional` names hidden options that take words without a dash; `synopsis` shows them:
// "JOB".
std::optional<boost::program_options::variables_map> parse_arguments(
    const Command& command, const std::string& synopsis, const std::string& example,
    const std::vector<std::string>& arguments, const boost::program_options::options_description& visible,
    const boost::program_options::options_description& hidden,
    const boost::program_options::positional_options_description& positional);
[[noreturn]] void missing_argument(const Command& command, const std::string& what);

// The candidate nearest to `word` by edit distance, "" where none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lockstep
