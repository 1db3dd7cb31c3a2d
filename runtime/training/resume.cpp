// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/resume.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "kernels/core/error.h"
#include "runtime/files/json_value.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr const char* kInitFrom = "model.init_from";

std::string said(const std::string& value) { return value.empty() ? "unset" : value; }

using StoredJob = std::map<std::string, std::string>;

std::string stored_value(const StoredJob& job, const std::string& key) {
  const auto found = job.find(key);
  return found == job.end() ? "" : found->second;
}

void compare_job(const StoredJob& stored, const JobValues& now, std::vector<Difference>& found) {
  std::set<std::string> keys;
  for (const auto& [key, value] : now) keys.insert(key);
  for (const auto& [key, value] : stored) keys.insert(key);
  for (const std::string& key : keys) {
    const auto row = now.find(key);
    const JobValue is = row == now.end() ? JobValue{} : row->second;
    if (is.may_change) continue;
    // A key that the checkpoint's program did not know had its default.
    const std::string was = stored_value(stored, key);
    const std::string from = was.empty() ? is.fallback : was, to = is.value.empty() ? is.fallback : is.value;
    if (from != to) found.push_back({key, said(from), said(to)});
  }
}

void compare_sets(const json& stored, const std::string& file,
                  const std::map<std::string, RunRecord::Set>& now, std::vector<Difference>& found) {
  for (const auto& [key, set] : now) {
    if (!stored.contains(key)) continue;  // its keys differ
    const json before = json_get<json::object_t>(stored, key, file, "data.");
    const std::string within = "data." + key + ".";
    const auto classes = json_get<std::vector<std::string>>(before, "classes", file, within);
    const auto content = json_get<std::string>(before, "content", file, within);
    const auto text = [](const std::vector<std::string>& names) {
      return fmt::format("classes [{}]", fmt::join(names, ", "));
    };
    if (classes != set.classes)
      found.push_back({key, text(classes), text(set.classes)});
    else if (content != set.content)
      found.push_back({key, "content " + content.substr(0, 12),
                       fmt::format("content {} in {}", set.content.substr(0, 12), set.path)});
  }
}

}  // namespace

RunRecord::Set set_record(const std::string& path, const SampleSource& set) {
  return {path, set.content_hash, set.class_names};
}

void write_record(json& meta, const RunRecord& record) {
  json job = json::object(), data = json::object();
  for (const auto& [key, value] : record.job)
    if (!value.value.empty()) job[key] = value.value;
  for (const auto& [key, set] : record.sets) data[key] = {{"content", set.content}, {"classes", set.classes}};
  meta["job"] = std::move(job);
  meta["data"] = std::move(data);
  if (!record.init_from.empty()) meta["init_from"] = record.init_from;
}

std::vector<Difference> differences(const json& meta, const std::string& file, const RunRecord& now,
                                    const std::function<std::string()>& hash_weights) {
  std::vector<Difference> found;
  const auto stored = json_get<StoredJob>(meta, "job", file);
  compare_job(stored, now.job, found);
  compare_sets(json_get<json::object_t>(meta, "data", file), file, now.sets, found);
  const auto row = now.job.find(kInitFrom);
  const std::string was = stored_value(stored, kInitFrom), is = row == now.job.end() ? "" : row->second.value;
  if (was != is &&
      (was.empty() || is.empty() || json_get_or<std::string>(meta, "init_from", "", file) != hash_weights()))
    found.push_back({kInitFrom, said(was), said(is)});
  return found;
}

bool is_allowed(const std::string& key, const std::vector<std::string>& allowed) {
  return std::any_of(allowed.begin(), allowed.end(), [&](const std::string& name) {
    return key == name || key.starts_with(name + ".") || key.starts_with(name + "[");
  });
}

void expect_keys(const std::vector<std::string>& allowed, const JobValues& job) {
  for (const std::string& name : allowed)
    if (std::none_of(job.begin(), job.end(), [&](const auto& row) { return is_allowed(row.first, {name}); }))
      throw Error(Exit::usage, "E_OPTION", fmt::format("--allow-change: the job has no key \"{}\"", name))
          .hint("a key as in the job file: hyperparameters.optimizer.lr, or the map that it is in");
}

void refuse_differences(const std::vector<Difference>& all, const std::vector<std::string>& allowed,
                        const JobValues& job, const std::string& checkpoint) {
  std::vector<std::string> texts, keys;
  for (const Difference& d : all) {
    if (is_allowed(d.key, allowed)) continue;
    texts.push_back(fmt::format("{} {}, now {}", d.key, d.from, d.to));
    if (!is_allowed(d.key, keys)) keys.push_back(d.key);
  }
  if (texts.empty()) return;
  Error error(Exit::config, "E_RESUME_JOB", fmt::format("the run began with {}", fmt::join(texts, "; ")));
  // A map's is that of the first key in it; of a key that is gone, the place is unknown.
  if (const auto row = job.lower_bound(keys[0]); row != job.end() && is_allowed(row->first, {keys[0]}))
    error.add_place("job", row->second.where);
  error.add_place("key", keys[0]);
  error.add_place("checkpoint", checkpoint);
  throw std::move(error).hint(fmt::format(
      "a resumed run goes on as it began: start a new one for other settings, or say --allow-change {}",
      fmt::join(keys, ",")));
}

}  // namespace lockstep
