// SPDX-License-Identifier: Apache-2.0
// Where libraries are looked for that are loaded when first needed.
#include "kernels/vendor/shared_library.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace lockstep::testing::shared_library_test {
namespace {

constexpr const char* kPath = "/nowhere/liblockstep-test.so.9";
constexpr const char* kName = "liblockstep-test.so.9";

// The file of a library that is surely there.
std::string some_library() {
  Dl_info info{};
  EXPECT_NE(::dladdr(::dlsym(RTLD_DEFAULT, "cosf"), &info), 0);
  return info.dli_fname;
}

TEST(SharedLibraries, AreFoundInPipsFolders) {
  const TestFolder environment;
  const std::string folder = environment.file("lib/python3.12/site-packages/nvidia/nccl/lib");
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(some_library(), folder + "/" + kName);
  ::setenv("VIRTUAL_ENV", environment.path().c_str(), 1);
  const SharedLibrary found({kPath, kName});
  ::unsetenv("VIRTUAL_ENV");
  ASSERT_TRUE(found.loaded()) << found.problem();
  EXPECT_NE(found.symbol("cosf"), nullptr);
  EXPECT_EQ(found.symbol("no such symbol"), nullptr);
}

TEST(SharedLibraries, OneThatIsNowhereSaysWhereItWasLookedFor) {
  const SharedLibrary none({kPath, kName});
  EXPECT_FALSE(none.loaded());
  for (const std::string& place : {std::string(kPath) + ": ", "; " + std::string(kName) + ": ",
                                   std::string("; ") + kName + ": in no folder of pip's nvidia packages"})
    EXPECT_NE(none.problem().find(place), std::string::npos) << none.problem();
}

}  // namespace
}  // namespace lockstep::testing::shared_library_test
