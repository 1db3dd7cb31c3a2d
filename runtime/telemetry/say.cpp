// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/say.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "runtime/files/utf8.h"
#include "runtime/telemetry/log.h"

namespace lockstep {

namespace {

std::atomic<bool> lost[2];  // stdout, stderr

}  // namespace

bool went_on_without(std::FILE* out) { return lost[out == stderr]; }

bool say(std::FILE* out, std::string_view text) { return say_styled(out, shown_lines(text)); }

bool say_styled(std::FILE* out, std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), out) == text.size() && std::fflush(out) == 0) return true;
  const int error = errno;
  const bool has_log = spdlog::default_logger_raw()->name() == kLogName;
  if (!lost[out == stderr].exchange(true) && has_log)
    spdlog::info("cannot write to standard {}: {}; the run goes on without it",
                 out == stderr ? "error" : "output", std::strerror(error));
  return false;
}

void put_out(std::string_view text) {
  const std::string shown = shown_lines(text);
  if (std::fwrite(shown.data(), 1, shown.size(), stdout) != shown.size()) throw output_error();
}

Error output_error() {
  return Error(Exit::io, "E_OUTPUT", "cannot write all of the output: standard output is closed or full");
}

}  // namespace lockstep
