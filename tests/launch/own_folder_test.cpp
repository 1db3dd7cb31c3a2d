// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/own_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {
namespace fs = std::filesystem;

TEST(OwnFolder, GoesWithItsOwner) {
  const TestFolder parent;
  auto folder = std::make_unique<OwnFolder>(parent.path());
  const std::string path = folder->path();
  write_file(path + "/rank-0", "x");
  folder.reset();
  EXPECT_FALSE(fs::exists(path));
}

TEST(OwnFolder, SweepsWhatTheDeadHaveLeftAndNothingElse) {
  const TestFolder parent;
  const OwnFolder living(parent.path());
  const std::string dead = parent.file("lockstep-abcdef"), other = parent.file("lockstep-ghijkl"),
                    longer = parent.file("lockstep-bench-1"), link = parent.file("lockstep-mnopqr"),
                    elsewhere = parent.file("elsewhere");
  for (const std::string& folder : {dead, other, longer, elsewhere}) fs::create_directory(folder);
  for (const std::string& folder : {dead, longer, elsewhere}) write_file(folder + "/owner", "");
  fs::create_directory(dead + "/ompi.session");
  fs::create_directory_symlink(elsewhere, link);
  const OwnFolder next(parent.path());
  EXPECT_FALSE(fs::exists(dead));
  for (const std::string& kept : {living.path(), next.path(), other, longer, link, elsewhere + "/owner"})
    EXPECT_TRUE(fs::exists(kept)) << kept;
}

}  // namespace
}  // namespace lockstep::testing
