// SPDX-License-Identifier: Apache-2.0
// The data sets that `lockstep data get` knows, where they are published and by what they are recognised.
#pragma once

#include <string>
#include <vector>

namespace lockstep {

struct RemoteFile {
  std::string name;  // below every mirror, and where it is saved
  std::string md5;   // as published
  // MNIST's publishers give the sum of the content, and mirrors compress it differently; others' is of the
  // file.
  bool md5_of_content = false;
};

struct RemoteSet {
  std::string name;
  std::vector<std::string> mirrors;  // base addresses, tried in turn
  std::vector<RemoteFile> files;
  std::string unpacks_to;  // the folder in it, if the only file is a .tar.gz; else empty
  // By whom the set is and under which licence, in Markdown: lies beside every copy, as README.md.
  std::string notice;
};

const std::vector<RemoteSet>& remote_sets();

}  // namespace lockstep
