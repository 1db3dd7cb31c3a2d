// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <ctime>
#include <set>

#include "kernels/core/error.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/files/json_value.h"
#include "runtime/telemetry/run_folder.h"

namespace lockstep {
namespace {

const std::set<std::string> kStates{"running", "completed", "interrupted", "failed"};

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// One list of the fields for both directions: visit(key, field).
template <class StatusType, class Visit>
void for_each_field(StatusType& status, Visit&& visit) {
  visit("state", status.state);
  visit("code", status.code);
  visit("rank", status.rank);
  visit("step", status.step);
  visit("steps", status.steps);
  visit("skipped_images", status.skipped_images);
  visit("op", status.op);
  visit("error_id", status.error_id);
  visit("cause", status.cause);
  visit("hint", status.hint);
  visit("time", status.time);
}

}  // namespace

void write_status(const std::string& run_folder, const Status& status) {
  LOCKSTEP_ASSERT(kStates.contains(status.state), "state {}", status.state);
  Status written = status;
  written.time = utc_now();
  nlohmann::ordered_json json;
  for_each_field(written, [&](const char* key, const auto& field) { json[key] = field; });
  // A cause may carry any bytes of a file's name.
  write_file_atomically(run_folder + "/status.json", json_text(json, 2) + "\n");
}

Status read_status(const std::string& run_folder) {
  const std::string path = run_folder + "/status.json";
  const auto bad = [&](const std::string& message) {
    return Error(Exit::data, "E_STATUS", message).at("file", path);
  };
  const MappedFile file(path);
  nlohmann::json json = nlohmann::json::parse(file.text(), nullptr, false);
  if (!json.is_object()) throw bad("expected a JSON object");
  Status status;
  for_each_field(status, [&](const std::string& key, auto& field) {
    const auto it = json.find(key);
    if (it == json.end()) throw bad(fmt::format("key \"{}\" is missing", key));
    using Field = std::remove_reference_t<decltype(field)>;
    if (!JsonType<Field>::holds(*it)) throw bad(fmt::format("key \"{}\": found {}", key, json_text(*it)));
    field = it->template get<Field>();
    json.erase(it);
  });
  if (!json.empty()) throw bad(fmt::format("unknown key \"{}\"", json.begin().key()));
  if (!kStates.contains(status.state)) throw bad(fmt::format("unknown state \"{}\"", status.state));
  return status;
}

Status last_status(const std::string& run_folder) {
  try {
    return read_status(run_folder);
  } catch (const Error&) {
    return {};
  }
}

Status failed(Status s, const Error& e, int64_t step) {
  s.state = "failed", s.code = e.code(), s.rank = -1, s.step = step;
  s.error_id = e.id(), s.cause = e.message(), s.hint = e.hint();
  for (const auto& [key, value] : e.places()) {
    if (key == "op") s.op = value;
    if (key == "step") std::from_chars(value.data(), value.data() + value.size(), s.step);
    if (key == "rank") std::from_chars(value.data(), value.data() + value.size(), s.rank);
  }
  return s;
}

}  // namespace lockstep
