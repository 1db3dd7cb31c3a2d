// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/say.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "runtime/telemetry/log.h"

namespace lockstep {

namespace {

std::atomic<bool> lost[2];  // stdout, stderr

}  // namespace

bool went_on_without(std::FILE* out) { return lost[out == stderr]; }

bool say(std::FILE* out, std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), out) == text.size() && std::fflush(out) == 0) return true;
  const int error = errno;
  const bool has_log = spdlog::default_logger_raw()->name() == kLogName;
  if (!lost[out == stderr].exchange(true) && has_log)
    spdlog::info("cannot write to standard {}: {}; the run goes on without it",
                 out == stderr ? "error" : "output", std::strerror(error));
  return false;
}

}  // namespace lockstep
