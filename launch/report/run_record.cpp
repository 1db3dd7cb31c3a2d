// SPDX-License-Identifier: Apache-2.0
#include "launch/report/run_record.h"

#include <algorithm>
#include <limits>
#include <map>

#include "launch/job/model_file.h"
#include "launch/job/yaml_tree.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/data/codec.h"
#include "runtime/files/json_value.h"
#include "runtime/files/path.h"

namespace lockstep::report {
namespace {

using nlohmann::json;

class LineReader {
 public:
  LineReader(const json& line, std::string place) : line_(line), place_(std::move(place)) {}

  double number(const char* key) const { return number_of(json_member(line_, key), key); }
  std::optional<double> optional_number(const char* key) const {
    if (!line_.contains(key)) return {};
    return number(key);
  }
  std::vector<std::vector<int64_t>> matrix(const char* key) const {
    std::vector<std::vector<int64_t>> rows;
    const json& value = json_member(line_, key);
    if (value.is_null()) return rows;
    for (const json& row : json_get<json::array_t>(line_, key, place_)) {
      if (!row.is_array() || row.size() != value.size() ||
          !std::all_of(row.begin(), row.end(), JsonType<int64_t>::holds))
        throw Error(Exit::data, "E_METRICS", "expected as many rows as columns of whole numbers")
            .at("file", place_)
            .at("key", key);
      rows.push_back(row.get<std::vector<int64_t>>());
    }
    return rows;
  }
  MetricsLine read() const {
    MetricsLine m;
    m.step = json_get<int64_t>(line_, "step", place_);
    m.epoch = json_get<double>(line_, "epoch", place_);
    m.split = json_get<std::string>(line_, "split", place_);
    m.loss = number("loss");
    m.accuracy = optional_number("accuracy");
    m.lr = optional_number("lr");
    m.samples_per_second = optional_number("samples_per_second");
    m.data_wait_percent = optional_number("data_wait_percent");
    m.allreduce_exposed_percent = optional_number("allreduce_exposed_percent");
    m.seconds = number("seconds");
    m.confusion = matrix("confusion");
    return m;
  }

 private:
  double number_of(const json& value, const char* key) const {
    if (value.is_null() && line_.contains(key)) return std::numeric_limits<double>::quiet_NaN();
    return json_get<double>(line_, key, place_);
  }
  const json& line_;
  std::string place_;
};

// On one line, as YAML has it in brackets.
std::string inline_text(const job::Node& node) {
  std::string out;
  const auto list = [&](char open, char close) {
    out += open;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const job::Node& child = node.children[i];
      if (i > 0) out += ", ";
      if (node.kind == job::Node::Kind::map) out += child.key + ": ";
      out += inline_text(child);
    }
    out += close;
  };
  if (node.kind == job::Node::Kind::map)
    list('{', '}');
  else if (node.kind == job::Node::Kind::list)
    list('[', ']');
  else
    out = node.text;
  return out;
}

void flatten(const job::Node& node, const std::string& path, KeyValues& out) {
  const auto is_plain = [](const job::Node& n) {
    return n.kind != job::Node::Kind::map && n.kind != job::Node::Kind::list;
  };
  if (node.kind == job::Node::Kind::map)
    for (const job::Node& child : node.children) flatten(child, job::join_path(path, child.key), out);
  else if (node.kind == job::Node::Kind::list &&
           !std::all_of(node.children.begin(), node.children.end(), is_plain))
    for (size_t i = 0; i < node.children.size(); ++i)
      out.emplace_back(fmt::format("{}[{}]", path, i), inline_text(node.children[i]));
  else
    out.emplace_back(path, inline_text(node));
}

PlanSummary read_plan(const std::string& file) {
  const json plan = json::parse(MappedFile(file).text(), nullptr, false);
  if (!plan.is_object()) throw Error(Exit::data, "E_JSON", "expected a JSON object").at("file", file);
  PlanSummary s;
  s.ranks = json_get_or<int64_t>(plan, "ranks", 0, file);
  s.batch_per_rank = json_get_or<int64_t>(plan, "batch_per_rank", 0, file);
  s.flops = json_get_or<int64_t>(plan, "flops", 0, file);
  const json memory = json_get_or<json::object_t>(plan, "memory", {}, file);
  s.peak_bytes = json_get_or<int64_t>(memory, "peak", 0, file, "memory.");
  s.activation_bytes = json_get_or<int64_t>(memory, "activations", 0, file, "memory.");
  std::map<std::string, PlanSummary::Op> ops;
  for (const json& node : json_get<json::array_t>(plan, "nodes", file)) {
    const std::string name = json_get<std::string>(node, "op", file, "nodes.");
    if (name == "view") continue;  // costs nothing
    PlanSummary::Op& op = ops[name];
    op.name = name;
    ++op.nodes;
    op.flops += json_get_or<int64_t>(node, "flops", 0, file, "nodes.");
    const std::string kernel = json_get_or<std::string>(node, "kernel", "", file, "nodes.");
    if (!kernel.empty() && (", " + op.kernels + ",").find(", " + kernel + ",") == std::string::npos)
      op.kernels += (op.kernels.empty() ? "" : ", ") + kernel;
  }
  for (auto& [name, op] : ops) s.ops.push_back(std::move(op));
  std::stable_sort(s.ops.begin(), s.ops.end(),
                   [](const auto& a, const auto& b) { return a.flops > b.flops; });
  return s;
}

void read_samples(RunRecord& run) {
  const std::string folder = run.folder + "/samples";
  if (!is_folder(folder)) return;
  std::vector<std::string> names = names_in(folder);
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".png"); });
  run.samples_there = names.size();
  const size_t shown = std::min(kMostGrids, names.size());
  for (size_t i = 0; i < shown; ++i) {
    const std::string& name = names[shown == 1 ? names.size() - 1 : i * (names.size() - 1) / (shown - 1)];
    const std::string path = folder + "/" + name;
    const MappedFile file(path);
    const std::span<const uint8_t> bytes{reinterpret_cast<const uint8_t*>(file.text().data()),
                                         file.text().size()};
    const Image image = decode_png(path, bytes);
    run.samples.push_back({"samples/" + name, std::string(file.text()), image.height, image.width});
  }
}

std::string last_part(const std::string& path) {
  const std::string whole = absolute_path(path);
  return whole.substr(whole.rfind('/') + 1);
}

}  // namespace

std::vector<MetricsLine> read_metrics(std::string_view text, const std::string& file) {
  std::vector<MetricsLine> lines;
  int64_t number = 0;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = text.find('\n', begin);
    const bool is_whole = end != std::string_view::npos;
    if (!is_whole) end = text.size();
    const std::string place = fmt::format("{}:{}", file, ++number);
    const json line = json::parse(text.substr(begin, end - begin), nullptr, false);
    if (!line.is_object()) {
      if (!is_whole) break;  // being written
      throw Error(Exit::data, "E_METRICS", "expected a JSON object").at("file", place);
    }
    lines.push_back(LineReader(line, place).read());
  }
  return lines;
}

KeyValues flat_job(std::string_view yaml, const std::string& file) {
  KeyValues all;
  flatten(job::parse_yaml(yaml, file, true), "", all);
  return all;
}

RunRecord read_run_record(const std::string& folder) {
  const auto file = [&](const char* name) { return folder + "/" + name; };
  if (!is_there(folder) || !is_there(file("job.yaml")))
    throw Error(Exit::no_input, "E_RUN_NONE",
                is_there(folder) ? "not a run folder: it has no job.yaml" : "no such run or folder")
        .at("folder", folder)
        .hint("`lockstep fit JOB --output DIR` makes one");
  RunRecord run;
  run.folder = folder;
  run.name = last_part(folder);
  run.job = flat_job(read_text_file(file("job.yaml"), job::kMaxJobBytes), file("job.yaml"));
  if (is_there(file("metrics.jsonl")))
    run.lines = read_metrics(MappedFile(file("metrics.jsonl")).text(), file("metrics.jsonl"));
  if (is_there(file("status.json"))) run.status = read_status(folder);
  if (is_there(file("plan.json"))) run.plan = read_plan(file("plan.json"));
  if (is_there(file(kModelFile))) run.model = read_model_file(file(kModelFile));
  read_samples(run);
  return run;
}

}  // namespace lockstep::report
