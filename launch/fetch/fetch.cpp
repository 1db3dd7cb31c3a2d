// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/fetch.h"

#include <filesystem>

#include "kernels/core/error.h"
#include "launch/fetch/part_file.h"
#include "launch/fetch/shown_url.h"
#include "launch/fetch/transfer.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/data/cifar10.h"
#include "runtime/data/hash.h"
#include "runtime/data/input_file.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

// "" where the file is what was published, else what is wrong with it.
std::string what_is_wrong(const std::string& path, const RemoteFile& file) {
  try {
    InputFile in(path, file.md5_of_content ? InputFile::Gzip::inflate : InputFile::Gzip::as_is);
    Digest digest("md5");
    std::vector<char> buffer(1 << 18);
    while (const int64_t n = in.read_up_to(buffer.data(), static_cast<int64_t>(buffer.size())))
      digest.add(buffer.data(), static_cast<size_t>(n));
    in.expect_end();
    const std::string found = digest.hex();
    if (found == file.md5) return "";
    return fmt::format("expected MD5 {}{}, found {}", file.md5, file.md5_of_content ? " of the content" : "",
                       found);
  } catch (const Error& e) {
    if (e.exit() != Exit::data) throw;
    return e.message();
  }
}

struct Failures {
  std::string text;
  bool wrong_content = false;

  void add(const std::string& url, const std::string& cause) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", shown_url(url), cause);
  }
};

// True: `out` holds what was published.
bool from_mirror(const std::string& url, const RemoteFile& file, PartFile& out, const FetchOptions& options,
                 Failures& failures) {
  std::string cause;
  for (int attempt = 0; attempt < options.attempts; ++attempt) {
    const bool resumed = out.size() > 0;
    const TransferResult result = transfer(url, file.name, out, options);
    cause = result.cause;
    if (result.whole) {
      cause = what_is_wrong(out.part(), file);
      if (cause.empty()) return true;
      out.truncate();
      // Of two mirrors' halves, each may be right.
      if (resumed) continue;
      failures.wrong_content = true;
      break;
    }
    if (!result.worth_another) break;
  }
  failures.add(url, cause);
  return false;
}

void fetch_file(const RemoteFile& file, const std::string& folder, const std::vector<std::string>& mirrors,
                const FetchOptions& options) {
  const std::string path = (fs::path(folder) / file.name).string();
  if (is_there(path) && what_is_wrong(path, file).empty()) return options.arrived(file.name, "");
  PartFile out(path);
  // Whole already, if the last run ended between the last byte and the renaming.
  if (out.size() > 0 && what_is_wrong(out.part(), file).empty()) {
    out.commit();
    return options.arrived(file.name, out.part());
  }
  Failures failures;
  for (const std::string& mirror : mirrors) {
    const std::string url = mirror + (mirror.ends_with('/') ? "" : "/") + file.name;
    if (from_mirror(url, file, out, options, failures)) {
      out.commit();
      return options.arrived(file.name, shown_url(url));
    }
  }
  if (out.size() == 0) out.discard();
  if (failures.wrong_content)
    throw Error(Exit::data, "E_FETCH_CONTENT",
                fmt::format("no mirror has the published file: {}", failures.text))
        .at("file", file.name);
  throw Error(Exit::try_again, "E_FETCH", fmt::format("no mirror delivers: {}", failures.text))
      .at("file", file.name)
      .hint("try again: what has arrived is kept; or name a mirror of your own with --mirror URL");
}

// The archive is not kept, so what it left is known by names and sizes.
bool unpacked(const std::string& folder) {
  try {
    for (const bool test : {false, true}) probe_cifar10(find_cifar10(folder, test));
    return true;
  } catch (const Error& e) {
    if (e.exit() != Exit::no_input && e.exit() != Exit::data) throw;
    return false;
  }
}

}  // namespace

void fetch(const RemoteSet& set, const std::string& folder, const FetchOptions& options) {
  const std::vector<std::string>& mirrors = options.mirrors.empty() ? set.mirrors : options.mirrors;
  make_shared_folder(folder);
  // Before the data, which never lies there without it; a README that is there already stays.
  if (const std::string notice = (fs::path(folder) / "README.md").string();
      !set.notice.empty() && !is_there(notice))
    replace_file(notice, [&](const std::string& temporary) {
      OutputFile out(temporary);
      out.write(set.notice);
      out.sync_and_close();
    });
  if (!set.unpacks_to.empty() && unpacked(folder)) return options.arrived(set.unpacks_to, "");
  for (const RemoteFile& file : set.files) {
    fetch_file(file, folder, mirrors, options);
    if (set.unpacks_to.empty()) continue;
    const std::string archive = (fs::path(folder) / file.name).string();
    unpack_tar_gz(archive, folder);
    std::error_code failed;
    if (!fs::remove(archive, failed))
      throw Error(Exit::io, "E_DATA_WRITE", failed.message()).at("file", archive);
  }
}

}  // namespace lockstep
