// SPDX-License-Identifier: Apache-2.0
// One vocabulary for errors: every failure that a user can cause or meet is an Error, which carries
// the process's exit code, a stable identifier, where it happened and what to do about it.
//
//   throw Error(Exit::data, "E_IDX_MAGIC", "expected magic 2051, found 7").at("file", path);
//   prints: error[E_IDX_MAGIC] file=train-images: expected magic 2051, found 7
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lockstep {

// Exit codes follow sysexits(3) as far as it goes.
enum class Exit : int {
  ok = 0,
  usage = 64,          // command line
  data = 65,           // bad data or checkpoint
  no_input = 66,       // missing data, checkpoint, file
  unavailable = 69,    // port busy
  internal = 70,       // our bug
  cannot_create = 73,  // output cannot be created, or is locked by another job
  io = 74,             // disk full, I/O error
  try_again = 75,      // peer lost, hang, preempted: resume
  disagree = 76,       // ranks disagree
  no_permission = 77,
  config = 78,    // bad job file, or asks for what this build or machine lacks
  diverged = 80,  // loss not finite
};

class Error : public std::exception {
 public:
  Error(Exit exit, std::string id, std::string message)
      : exit_(exit), id_(std::move(id)), message_(std::move(message)) {
    render();
  }

  // Adds a place ("file", "line", "tensor", "rank", "step", ...); printed in the order added.
  Error&& at(std::string_view key, std::string_view value) && {
    add_place(key, value);
    return std::move(*this);
  }
  Error&& at(std::string_view key, int64_t value) && {
    add_place(key, std::to_string(value));
    return std::move(*this);
  }
  Error&& hint(std::string text) && {
    set_hint(std::move(text));
    return std::move(*this);
  }
  // For a handler that knows more than the thrower: adds a place unless one of that key is there.
  void add_place(std::string_view key, std::string_view value) {
    for (const auto& [k, v] : places_)
      if (k == key) return;
    places_.emplace_back(key, value);
    render();
  }

  void set_hint(std::string text) {
    hint_ = std::move(text);
    render();
  }

  Exit exit() const { return exit_; }
  int code() const { return static_cast<int>(exit_); }
  const std::string& id() const { return id_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }
  const std::vector<std::pair<std::string, std::string>>& places() const { return places_; }
  const char* what() const noexcept override { return rendered_.c_str(); }

 private:
  void render() {
    rendered_ = fmt::format("error[{}]", id_);
    for (const auto& [k, v] : places_) rendered_ += fmt::format(" {}={}", k, v);
    rendered_ += ": " + message_;
    if (!hint_.empty()) rendered_ += "; hint: " + hint_;
  }

  Exit exit_;
  std::string id_, message_, hint_, rendered_;
  std::vector<std::pair<std::string, std::string>> places_;
};

// A condition that only our own bug can break: exit 70 with expression, file and line.
[[noreturn]] inline void internal_error(const char* expression, const char* file, int line,
                                        const std::string& message) {
  throw Error(Exit::internal, "E_INTERNAL",
              fmt::format("{}:{}: {}{}{}", file, line, expression, message.empty() ? "" : ": ", message));
}
#define LOCKSTEP_ASSERT(condition, ...)                                                          \
  do {                                                                                           \
    if (!(condition)) [[unlikely]]                                                               \
      ::lockstep::internal_error(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (0)

}  // namespace lockstep
