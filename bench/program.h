// SPDX-License-Identifier: Apache-2.0
// What a bench program's main() does with errors.
#pragma once

#include <boost/program_options/errors.hpp>
#include <cstdio>

#include "kernels/core/error.h"

namespace lockstep {

// Runs it; what it throws goes to stderr under its name, and becomes the exit code.
inline int program(const char* name, int (*run)(int argc, char** argv), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return e.code();
  } catch (const boost::program_options::error& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return static_cast<int>(Exit::usage);
  }
}

}  // namespace lockstep
