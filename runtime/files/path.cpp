// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

namespace lockstep {
namespace {

const char* kind_name(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

Error no_file(const std::string& path, const char* found, const ReadErrors& errors) {
  return Error(Exit::no_input, errors.missing, fmt::format("expected a file, found {}", found))
      .at("file", path);
}

}  // namespace

Error cannot_open(const std::string& path, int error_number, const ReadErrors& errors) {
  const bool missing = error_number == ENOENT || error_number == ENOTDIR;
  const bool denied = error_number == EACCES || error_number == EPERM;
  return Error(missing  ? Exit::no_input
               : denied ? Exit::no_permission
                        : Exit::io,
               missing ? errors.missing : errors.unreadable,
               missing ? std::string("there is no such file or folder")
                       : fmt::format("cannot read: {}", std::strerror(error_number)))
      .at("file", path);
}

PathKind path_kind(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0)
    return S_ISREG(status.st_mode)   ? PathKind::file
           : S_ISDIR(status.st_mode) ? PathKind::folder
                                     : PathKind::other;
  // A name that is too long, or a circle of links, is no file's.
  if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == ELOOP) return PathKind::none;
  throw cannot_open(path, errno);
}

std::vector<std::string> names_in(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(folder.c_str()), ::closedir);
  if (!entries) throw cannot_open(folder, errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(entries.get()))
    if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
  if (errno != 0) throw cannot_open(folder, errno);
  std::sort(names.begin(), names.end());
  return names;
}

std::string absolute_path(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  if (error) throw cannot_open(".", error.value());  // the folder that we are in was removed
  return absolute.lexically_normal().string();
}

int open_file(const std::string& path, const ReadErrors& errors) {
  // O_NONBLOCK: without it, opening a pipe waits for who writes to it.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0 && errno == ENXIO) throw no_file(path, "a socket", errors);
  if (descriptor < 0) throw cannot_open(path, errno, errors);
  struct stat status {};
  const int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(status.st_mode)) return descriptor;
  ::close(descriptor);
  throw error != 0 ? cannot_open(path, error, errors) : no_file(path, kind_name(status.st_mode), errors);
}

std::string read_text_file(const std::string& path, size_t most, const ReadErrors& errors) {
  const int descriptor = open_file(path, errors);
  std::string text;
  char chunk[1 << 14];
  ssize_t n = 0;
  do {
    n = ::read(descriptor, chunk, sizeof chunk);
    if (n > 0) text.append(chunk, static_cast<size_t>(n));
  } while ((n > 0 && text.size() <= most) || (n < 0 && errno == EINTR));
  const int error = n < 0 ? errno : 0;
  ::close(descriptor);
  if (error != 0) throw cannot_open(path, error, errors);
  if (text.size() > most)
    throw Error(Exit::data, errors.unreadable, fmt::format("expected at most {} bytes, found more", most))
        .at("file", path);
  return text;
}

}  // namespace lockstep
