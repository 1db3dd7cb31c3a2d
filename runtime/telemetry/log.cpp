// SPDX-License-Identifier: Apache-2.0
#include "runtime/telemetry/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include "kernels/core/notice.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/utf8.h"

namespace lockstep {
namespace {

std::mutex route_mutex;
std::function<void(const std::string&)> route;  // guarded by route_mutex

// Warnings and errors for the person at the terminal.
class PersonSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    const std::lock_guard lock(route_mutex);
    if (route) {
      route(std::string(line.data(), line.size()));
    } else {
      // Not say(), which logs what it cannot say.
      std::fputs((shown_lines({line.data(), line.size()}) + "\n").c_str(), stderr);
    }
  }
  void flush_() override { std::fflush(stderr); }
};

// A line is in the file when a rank dies after it.
class FileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FileSink(const std::string& path) : file_(path, OutputFile::Existing::kept) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    file_.write(std::string_view(line.data(), line.size()));
  }
  void flush_() override {}

 private:
  OutputFile file_;
};

// A line of a file that is UTF-8 and can be shown, whatever names of files it holds.
class ShownFormatter : public spdlog::formatter {
 public:
  explicit ShownFormatter(std::unique_ptr<spdlog::formatter> line) : line_(std::move(line)) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    spdlog::memory_buf_t line;
    line_->format(message, line);
    const std::string text = shown_lines({line.data(), line.size()});
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<ShownFormatter>(line_->clone());
  }

 private:
  std::unique_ptr<spdlog::formatter> line_;
};

void report_once(const std::string& message) {
  static std::atomic<bool> reported{false};
  if (!reported.exchange(true))
    std::fputs(shown_lines("warning: the log is incomplete: " + message + "\n").c_str(), stderr);
}

}  // namespace

void open_log(const std::string& file, int rank, int ranks) {
  auto person = std::make_shared<PersonSink>();
  person->set_level(spdlog::level::warn);
  // No line end: whoever shows it adds one.
  person->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      ranks > 1 ? fmt::format("%l: rank {}: %v", rank) : "%l: %v", spdlog::pattern_time_type::utc, ""));
  std::vector<spdlog::sink_ptr> sinks{std::move(person)};
  if (!file.empty()) {
    sinks.push_back(std::make_shared<FileSink>(file));
    sinks.back()->set_formatter(std::make_unique<ShownFormatter>(std::make_unique<spdlog::pattern_formatter>(
        fmt::format("%Y-%m-%dT%H:%M:%S.%eZ [rank {}] %l: %v", rank), spdlog::pattern_time_type::utc)));
  }
  auto logger = std::make_shared<spdlog::logger>(kLogName, sinks.begin(), sinks.end());
  logger->set_level(spdlog::level::info);
  logger->set_error_handler(report_once);
  spdlog::set_default_logger(std::move(logger));
  set_notices([](const std::string& text) { spdlog::info("{}", text); });
}

void route_warnings(std::function<void(const std::string&)> sink) {
  const std::lock_guard lock(route_mutex);
  route = std::move(sink);
}

}  // namespace lockstep
