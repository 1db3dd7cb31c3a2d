// SPDX-License-Identifier: Apache-2.0
// Keeps a test's data sets out of the user's cache.
#pragma once

#include <cstdlib>

#include "tests/support/temporary_folder.h"

namespace lockstep::testing {

class OwnCache {
 public:
  OwnCache() { ::setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1); }
  ~OwnCache() { ::unsetenv("XDG_CACHE_HOME"); }
  std::string path() const { return folder_.file("lockstep"); }

 private:
  TestFolder folder_;
};

}  // namespace lockstep::testing
