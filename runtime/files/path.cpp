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

const char* why_no_input(int error_number) {
  switch (error_number) {
    case kIsFolder:
      return "expected a file, found a folder";
    case kIsNoFile:
    case ENXIO:
      return "expected a file, found a pipe, a socket or a device";
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
      return "there is no such file or folder";
    case ELOOP:
      return "its links lead in a circle";
    default:
      return nullptr;
  }
}

bool is_denied(int error_number) { return error_number == EACCES || error_number == EPERM; }

Error cannot_open(const std::string& path, int error_number) {
  if (const char* why = why_no_input(error_number))
    return Error(Exit::no_input, "E_NO_INPUT", why).at("file", path);
  return Error(is_denied(error_number) ? Exit::no_permission : Exit::io, "E_IO",
               fmt::format("cannot read: {}", std::strerror(error_number)))
      .at("file", path);
}

PathKind path_kind(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0)
    return S_ISREG(status.st_mode)   ? PathKind::file
           : S_ISDIR(status.st_mode) ? PathKind::folder
                                     : PathKind::other;
  if (why_no_input(errno)) return PathKind::none;
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

const char* why_not_at_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  if (!path.starts_with('~')) return nullptr;
  if (path.size() > 1 && path[1] != '/') return "names another user's home folder; write the path out";
  return home == nullptr || *home == '\0' ? "asks for the home folder, but HOME is not set" : nullptr;
}

std::string at_home(const std::string& path) {
  return path.starts_with('~') && !why_not_at_home(path) ? std::getenv("HOME") + path.substr(1) : path;
}

void expect_writable(const std::string& folder) {
  std::string there = absolute_path(folder);
  while (there.size() > 1 && !is_there(there)) there = std::filesystem::path(there).parent_path().string();
  const int problem = !is_folder(there) ? ENOTDIR : ::access(there.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
  if (problem != 0)
    throw Error(Exit::cannot_create, "E_CANNOT_CREATE",
                fmt::format("cannot write to the folder: {}", std::strerror(problem)))
        .at("file", there);
}

int open_file(const std::string& path, OpenError error) {
  // O_NONBLOCK: without it, opening a pipe waits for who writes to it.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) throw error(path, errno);
  struct stat status {};
  int problem = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  if (problem == 0 && S_ISREG(status.st_mode)) return descriptor;
  if (problem == 0) problem = S_ISDIR(status.st_mode) ? kIsFolder : kIsNoFile;
  ::close(descriptor);
  throw error(path, problem);
}

std::string read_text_file(const std::string& path, size_t most, OpenError error) {
  const int descriptor = open_file(path, error);
  std::string text;
  char chunk[1 << 14];
  ssize_t n = 0;
  do {
    n = ::read(descriptor, chunk, sizeof chunk);
    if (n > 0) text.append(chunk, static_cast<size_t>(n));
  } while ((n > 0 && text.size() <= most) || (n < 0 && errno == EINTR));
  const int problem = n < 0 ? errno : 0;
  ::close(descriptor);
  if (problem != 0) throw error(path, problem);
  if (text.size() > most)
    throw Error(Exit::data, "E_FILE_SIZE", fmt::format("expected at most {} bytes, found more", most))
        .at("file", path);
  return text;
}

}  // namespace lockstep
