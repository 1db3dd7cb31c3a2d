// SPDX-License-Identifier: Apache-2.0
// A private folder of a launcher, gone with it. What one that was killed has left goes when the next one starts.
#pragma once

#include <string>

#include "runtime/files/file_lock.h"

namespace lockstep {

class OwnFolder {
 public:
  // PARENT/lockstep-XXXXXX, for this user alone. Before, removes those of this user below `parent` whose makers are dead: of
  // one that lives, the file "owner" in it is locked. Errors: cannot_create (73).
  explicit OwnFolder(const std::string& parent);
  ~OwnFolder();
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  FileLock owner_;
};

}  // namespace lockstep
