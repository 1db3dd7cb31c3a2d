// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/file_io.h"
#include "runtime/files/json_text.h"
#include "runtime/telemetry/metrics.h"

namespace lockstep {
namespace {

// Bytes of the leading lines that are whole and not past `step`. Lines are written in order of steps, so
// whatever follows the first other one (a torn or zeroed tail included) is the part that will be written
// again.
size_t bytes_to_keep(std::string_view text, int64_t step) {
  size_t kept = 0;
  for (size_t end; (end = text.find('\n', kept)) != std::string_view::npos; kept = end + 1) {
    const nlohmann::json line = nlohmann::json::parse(text.substr(kept, end - kept), nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer() ||
        line["step"] > step)
      break;
  }
  return kept;
}

}  // namespace

MetricsWriter::MetricsWriter(const std::string& path, std::optional<int64_t> resume_step)
    : file_(path, OutputFile::Existing::kept) {
  file_.cut(resume_step ? static_cast<int64_t>(bytes_to_keep(MappedFile(path).text(), *resume_step)) : 0);
}

void MetricsWriter::write(const MetricsLine& line) {
  nlohmann::ordered_json json{
      {"step", line.step}, {"epoch", line.epoch}, {"split", line.split}, {"loss", line.loss}};
  const auto add = [&](const char* key, const std::optional<double>& value) {
    if (value) json[key] = *value;
  };
  add("accuracy", line.accuracy);
  add("lr", line.lr);
  add("samples_per_second", line.samples_per_second);
  add("data_wait_percent", line.data_wait_percent);
  add("allreduce_exposed_percent", line.allreduce_exposed_percent);
  json["seconds"] = line.seconds;
  if (!line.confusion.empty()) json["confusion"] = line.confusion;
  file_.write(json_text(json) + "\n");  // what is not finite becomes null
}

}  // namespace lockstep
