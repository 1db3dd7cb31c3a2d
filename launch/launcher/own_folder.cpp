// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/own_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/core/error.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

constexpr std::string_view kBegin = "lockstep-", kRandom = "XXXXXX";

std::string owner_file(const std::string& folder) { return folder + "/owner"; }

// Of this user, no link, and with an owner's file, which other folders of such a name lack.
bool is_ours(const std::string& folder) {
  struct stat about {};
  return ::lstat(folder.c_str(), &about) == 0 && S_ISDIR(about.st_mode) && about.st_uid == ::geteuid() &&
         ::lstat(owner_file(folder).c_str(), &about) == 0 && S_ISREG(about.st_mode);
}

void remove(const std::string& folder) {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

// What cannot be looked at stays.
void sweep(const std::string& parent) {
  try {
    for (const std::string& name : names_in(parent)) {
      const std::string folder = parent + "/" + name;
      if (!name.starts_with(kBegin) || name.size() != kBegin.size() + kRandom.size() || !is_ours(folder))
        continue;
      if (const FileLock lock = FileLock::try_lock(owner_file(folder))) remove(folder);
    }
  } catch (const Error&) {
  }
}

}  // namespace

OwnFolder::OwnFolder(const std::string& parent) {
  sweep(parent);
  path_ = fmt::format("{}/{}{}", parent, kBegin, kRandom);
  if (!::mkdtemp(path_.data()))
    throw Error(Exit::cannot_create, "E_TMP",
                fmt::format("cannot create a temporary folder: {}", std::strerror(errno)))
        .at("path", path_);
  // Under another name first: it is locked before it is seen.
  const std::string file = owner_file(path_);
  try {
    owner_ = FileLock::try_lock(file + ".new");
    // Not where a lock is a file, which a new name would free.
    if (!is_there(file + ".new" + std::string(kHeldFile))) ::rename((file + ".new").c_str(), file.c_str());
  } catch (const Error&) {  // it is not swept then
  }
}

OwnFolder::~OwnFolder() { remove(path_); }

}  // namespace lockstep
