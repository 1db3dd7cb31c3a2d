// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/captions.h"

#include <filesystem>
#include <unordered_map>

#include "kernels/random/philox.h"
#include "runtime/data/input_file.h"
#include "runtime/files/json_value.h"
#include "runtime/files/path.h"
#include "runtime/text/unicode.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr size_t kMostMetadataBytes = size_t{1} << 30, kMostCaptionBytes = 1 << 16;
constexpr std::string_view kSpace = " \t\r\n\v\f";

Error bad_captions(const std::string& file, std::string message) {
  return Error(Exit::data, "E_CAPTIONS", std::move(message)).at("file", file);
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) + 1 - first);
}

// One line of metadata.jsonl.
class MetadataRow {
 public:
  MetadataRow(const std::string& file, int64_t line, std::string_view text) : file_(file), line_(line) {
    if (const auto bad = first_bad_utf8(text))
      throw error(fmt::format("is not UTF-8 at byte {} of the line", *bad));
    row_ = json::parse(text, nullptr, false);
    if (!row_.is_object()) throw error("is no JSON object");
  }

  // Of a picture below `folder`.
  std::string path(const std::string& folder) const {
    const json& value = member("file_name");
    if (!value.is_string() || value.get_ref<const std::string&>().empty())
      throw error("expected the path of a picture, found " + json_text(value), "file_name");
    const auto name = value.get<std::string>();
    const std::filesystem::path relative(name);
    bool leaves = relative.is_absolute() || name.find("://") != std::string::npos ||
                  name.find('\0') != std::string::npos;
    for (const auto& part : relative) leaves = leaves || part == "..";
    if (leaves)
      throw error(fmt::format("expected a path below the folder, found {}", json_text(value)), "file_name");
    const std::string path = (std::filesystem::path(folder) / relative).lexically_normal().string();
    const PathKind kind = path_kind(path);
    if (kind == PathKind::file) return path;
    Error wrong = error(fmt::format("\"{}\" is {}", name,
                                    kind == PathKind::none     ? "missing"
                                    : kind == PathKind::folder ? "a folder"
                                                               : "no file"),
                        "file_name");
    wrong.set_hint("file_name is relative to the folder of metadata.jsonl");
    throw wrong;
  }

  std::vector<std::string> captions(const std::string& column) const {
    const json& value = member(column);
    std::vector<std::string> all;
    if (value.is_string())
      all.push_back(value.get<std::string>());
    else if (JsonType<std::vector<std::string>>::holds(value))
      all = value.get<std::vector<std::string>>();
    else
      throw error("expected a caption or a list of captions, found " + json_text(value).substr(0, 200),
                  column);
    if (all.empty()) throw error("the list of captions is empty", column);
    for (const std::string& caption : all)
      if (trimmed(caption).empty()) throw without_caption(error("the caption is empty", column));
    return all;
  }

  static Error without_caption(Error e) {
    e.set_hint("captions.dropout shows pictures without caption");
    return e;
  }

 private:
  const json& member(const std::string& column) const {
    if (row_.contains(column)) return row_[column];
    std::string columns;
    for (const auto& [name, value] : row_.items())
      columns += fmt::format("{}\"{}\"", columns.empty() ? "" : ", ", name);
    throw error(fmt::format("there is no such column; there are {}", columns.empty() ? "none" : columns),
                column);
  }
  Error error(std::string message, std::string_view column = {}) const {
    Error e = bad_captions(file_, std::move(message)).at("line", line_);
    if (!column.empty()) e.add_place("column", column);
    return e;
  }

  const std::string& file_;
  int64_t line_;
  json row_;
};

}  // namespace

CaptionedFiles read_metadata(const std::string& folder, const std::string& column) {
  const std::string file = folder + "/" + kMetadataName;
  const std::string text = read_text_file(file, kMostMetadataBytes, cannot_read);
  CaptionedFiles found;
  std::unordered_map<std::string, int64_t> lines;  // of files
  std::string_view left = text;
  for (int64_t number = 1; !left.empty(); ++number) {
    const std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    if (trimmed(line).empty()) continue;
    const MetadataRow row(file, number, line);
    found.files.push_back(row.path(folder));
    found.captions.push_back(row.captions(column));
    if (const auto [known, is_new] = lines.emplace(found.files.back(), number); !is_new)
      throw bad_captions(file, fmt::format("line {} has this picture too", known->second))
          .at("line", number)
          .at("column", "file_name")
          .hint("several captions of one picture are a list");
  }
  if (found.files.empty()) throw bad_captions(file, "names no picture");
  return found;
}

std::string caption_file_of(const std::string& picture) {
  return std::filesystem::path(picture).replace_extension(".txt").string();
}

std::string read_caption_file(const std::string& picture) {
  const std::string file = caption_file_of(picture);
  if (!is_there(file)) throw bad_captions(file, fmt::format("the caption of {} is missing", picture));
  const std::string text = read_text_file(file, kMostCaptionBytes, cannot_read);
  if (const auto bad = first_bad_utf8(text))
    throw bad_captions(file, fmt::format("is not UTF-8 at byte {}", *bad));
  const std::string_view caption = trimmed(text);
  if (caption.empty()) throw MetadataRow::without_caption(bad_captions(file, "the caption is empty"));
  return std::string(caption);
}

Error no_captions(const std::string& folder) {
  Error error =
      Error(Exit::no_input, "E_CAPTIONS_NONE",
            fmt::format("expected captions in {} or, for x.png, in x.txt, found neither", kMetadataName))
          .at("file", folder);
  for (const std::string& name : names_in(folder)) {
    std::string lower;
    for (char c : name) lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower.starts_with("metadata"))
      error.set_hint(fmt::format("{} is read, \"{}\" is not", kMetadataName, utf8_text(name)));
  }
  return error;
}

void caption_by_class(ImageSet& set, const std::string& pattern) {
  const size_t place = pattern.find("{}");
  if (place == std::string::npos)
    throw Error(Exit::config, "E_CAPTIONS",
                fmt::format("expected {{}} in captions.template, found \"{}\"", pattern));
  if (set.class_names.empty())
    throw Error(Exit::config, "E_CAPTIONS", "captions.template needs classes, and the data set has none");
  set.captions.clear();
  for (int32_t label : set.labels) {
    std::string caption = pattern;
    set.captions.push_back({caption.replace(place, 2, set.class_names[static_cast<size_t>(label)])});
  }
}

std::string caption_of(const SampleSource& set, int64_t i, uint64_t seed, int64_t epoch, double dropout) {
  const std::vector<std::string> captions = set.captions_of(epoch, i);
  const Philox4 draws = random4(seed, stream::kCaption, epoch, i, 0);
  if (static_cast<double>(uniform01(draws.x[0])) < dropout) return {};
  return captions[static_cast<size_t>(uint64_t{draws.x[1]} * captions.size() >> 32)];
}

}  // namespace lockstep
