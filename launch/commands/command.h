// SPDX-License-Identifier: Apache-2.0
// The commands of `lockstep`, and what they share. A new command: a file in this folder and a line in
// commands.cpp.
#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace lockstep {

// What may stand behind a command's name. Parsing, --help, the manual page and the shells' completion are all
// made from it.
struct Usage {
  std::string synopsis;                                               // of the words without a dash: "JOB"
  std::string example;                                                // one or more lines
  boost::program_options::options_description visible;                // what --help lists
  boost::program_options::options_description hidden;                 // takes the words without a dash
  boost::program_options::positional_options_description positional;  // says which word goes where
};

// What a command is run with.
struct Arguments {
  std::vector<std::string> words;  // those behind its name
  // Where it is set, parse_arguments() hands the command's usage to it, and the command does nothing else.
  std::function<void(const Usage&)> describe;
};

struct Command {
  const char* name;
  const char* summary;                     // one line
  int (*run)(const Arguments& arguments);  // the exit code; throws Error
  bool computes = false;                   // it runs kernels itself, always: main.cpp
};

const std::vector<Command>& commands();

// The exit codes, in order, and what they say to a user.
struct ExitMeaning {
  int code;
  const char* meaning;
};
const std::vector<ExitMeaning>& exit_meanings();

// Runs the command that argv names; prints help; turns every Error into its message on stderr and its exit
// code.
int run_command_line(int argc, char** argv);

// Parses a command's arguments. nullopt: the command has nothing more to do, as --help was asked for and
// printed, or its usage described. Errors: usage (64), with the nearest option.
std::optional<boost::program_options::variables_map> parse_arguments(const Command& command,
                                                                     const Usage& usage,
                                                                     const Arguments& arguments);
[[noreturn]] void missing_argument(const Command& command, const std::string& what);

// The candidate nearest to `word` by edit distance, "" where none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lockstep
