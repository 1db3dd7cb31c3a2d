// SPDX-License-Identifier: Apache-2.0
// Downloads a data set: mirrors tried in turn, partial files resumed, content checked, renamed into place.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/fetch/catalog.h"

namespace lockstep {

struct FetchOptions {
  std::vector<std::string> mirrors;  // instead of the set's own
  long connect_seconds = 15;
  long stall_seconds = 20;  // a transfer that is slower than that for so long is given up
  long least_bytes_per_second = 1000;
  int attempts = 3;  // per mirror, each going on where the one before broke off
  // Bytes so far and in all (0: unknown), called often; and once a file is in place, where from ("" if it
  // already was), without name and password.
  std::function<void(const std::string& file, int64_t done, int64_t total)> progress = [](auto&&...) {};
  std::function<void(const std::string& file, const std::string& from)> arrived = [](auto&&...) {};
};

// Puts the files of a set into a folder, which it creates, with the set's notice as README.md. A file that is there and whole is left alone; what
// has arrived of an unfinished one lies beside it as NAME.part and is continued by the next call. Errors,
// with the cause at each mirror: try_again (75) where none delivers; data (65) where one delivers, but
// something else than was published; cannot_create (73), also while another process downloads the same file;
// io (74).
void fetch(const RemoteSet& set, const std::string& folder, const FetchOptions& options);

// Unpacks a .tar.gz: regular files and folders; Error data (65) at links, devices, and names that lead out of
// the folder. Each file appears whole.
void unpack_tar_gz(const std::string& archive, const std::string& folder);

}  // namespace lockstep
