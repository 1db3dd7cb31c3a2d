// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/recorded_hash.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>

#include "runtime/data/hash.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMostBytes = 16 << 20;  // of a file with hashes

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// "HASH  NAME" or "HASH *NAME" a line, as sha256sum writes them.
std::optional<RecordedHash> in_sums(const std::string& folder, const std::string& name) {
  const std::string sums = folder + "/SHA256SUMS";
  if (!is_file(sums)) return std::nullopt;
  std::istringstream lines(read_text_file(sums, kMostBytes));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.size() < 67 || !is_sha256(line.substr(0, 64))) continue;
    std::string named = line.substr(66);
    if (named.starts_with("./")) named.erase(0, 2);
    if (named == name) return RecordedHash{line.substr(0, 64), sums};
  }
  return std::nullopt;
}

// snapshots/REVISION/unet/… is a link to blobs/HASH.
std::optional<RecordedHash> in_link(const std::string& path) {
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  if (error || !is_sha256(target.filename().string()) || target.parent_path().filename() != "blobs")
    return std::nullopt;
  return RecordedHash{target.filename().string(), path};
}

// Three lines: commit, ETag (of a large file its SHA-256) and the time of the download.
std::optional<RecordedHash> in_download(const std::string& folder, const std::string& name,
                                        const std::string& path) {
  const std::string notes = folder + "/.cache/huggingface/download/" + name + ".metadata";
  struct stat status {};
  if (!is_file(notes) || ::stat(path.c_str(), &status) != 0) return std::nullopt;
  std::istringstream lines(read_text_file(notes, kMostBytes));
  std::string commit, tag, time;
  std::getline(lines, commit), std::getline(lines, tag), std::getline(lines, time);
  double seconds = 0;
  std::from_chars(time.data(), time.data() + time.size(), seconds);
  // A file that was changed since is another one.
  if (!is_sha256(tag) || static_cast<double>(status.st_mtime) > seconds + 1) return std::nullopt;
  return RecordedHash{tag, notes};
}

}  // namespace

std::optional<RecordedHash> recorded_hash(const std::string& path) {
  if (auto hash = in_link(path)) return hash;
  const fs::path file = absolute_path(path);
  fs::path folder = file.parent_path();
  std::string name = file.filename().string();
  for (int up = 0; up < 2; ++up) {
    if (auto hash = in_sums(folder.string(), name)) return hash;
    if (auto hash = in_download(folder.string(), name, path)) return hash;
    name = folder.filename().string() + "/" + name;
    folder = folder.parent_path();
  }
  return std::nullopt;
}

void verify_recorded_hash(const SafetensorsFile& file) {
  const auto expected = recorded_hash(file.path());
  if (!expected) return;
  if (const std::string found = sha256_hex(file.bytes()); found != expected->sha256)
    throw Error(
        Exit::data, "E_WEIGHTS_HASH",
        fmt::format("expected SHA-256 {} as {} has it, found {}", expected->sha256, expected->source, found))
        .at("file", file.path())
        .hint("the file is damaged or another one: get it again");
}

}  // namespace lockstep
