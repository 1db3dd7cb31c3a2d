// SPDX-License-Identifier: Apache-2.0
// The house rules that a compiler does not know: which floor may include which, include guards, no paths of
// somebody's machine.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// From the bottom up; a floor may include itself and those below.
constexpr std::array<const char*, 4> kFloors = {"kernels", "runtime", "models", "launch"};

struct Source {
  std::string path;  // from the root
  std::string text;
};

std::vector<Source> sources_below(const std::string& folder, const std::string& extensions) {
  std::vector<Source> found;
  const fs::path root = LOCKSTEP_SOURCE_DIR;
  const std::regex wanted(extensions);
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    if (!entry.is_regular_file() || !std::regex_match(entry.path().filename().string(), wanted)) continue;
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    found.push_back({entry.path().lexically_relative(root).string(), text.str()});
  }
  return found;
}

const char* const kCode = R"(.*\.(h|cpp|cu|cuh|proto))";

// "path:line" of every match of the first group of `pattern`, with the match.
std::vector<std::string> matches(const Source& source, const std::regex& pattern) {
  std::vector<std::string> found;
  std::istringstream lines(source.text);
  std::string line;
  for (int n = 1; std::getline(lines, line); ++n) {
    std::smatch m;
    if (std::regex_search(line, m, pattern))
      found.push_back(source.path + ":" + std::to_string(n) + ": " + m[1].str());
  }
  return found;
}

std::vector<std::string> upward_includes(const Source& source, size_t floor) {
  std::string above;
  for (size_t i = floor + 1; i < kFloors.size(); ++i)
    above += std::string(above.empty() ? "" : "|") + kFloors[i];
  if (above.empty()) return {};
  // <...> too, and a path that climbs out of its floor
  return matches(source,
                 std::regex("^\\s*#\\s*include\\s*([<\"](?:(?:\\.\\./)+)?(?:" + above + ")/[^>\"]*)"));
}

TEST(Floors, NoFloorIncludesAHigherOne) {
  for (size_t floor = 0; floor < kFloors.size(); ++floor) {
    const auto sources = sources_below(kFloors[floor], kCode);
    ASSERT_FALSE(sources.empty()) << kFloors[floor];
    for (const auto& source : sources)
      for (const auto& upward : upward_includes(source, floor)) ADD_FAILURE() << upward;
  }
}

TEST(Floors, FindsAnUpwardInclude) {
  const Source source{"runtime/x.cpp",
                      "#include <vector>\n#include \"kernels/core/tensor.h\"\n"
                      "  # include \"models/spec.h\"\n#include \"../launch/job/job.h\"\n"};
  EXPECT_EQ(upward_includes(source, 1), (std::vector<std::string>{"runtime/x.cpp:3: \"models/spec.h",
                                                                  "runtime/x.cpp:4: \"../launch/job/job.h"}));
  EXPECT_TRUE(upward_includes(source, 3).empty());
}

// Tests and benches stand beside the house: nothing in it leans on them.
TEST(Floors, NothingInTheHouseIncludesTestsOrBenches) {
  const std::regex pattern(R"(^\s*#\s*include\s*"((?:\.\./)*(?:tests|bench)/[^"]*))");
  for (const char* floor : kFloors)
    for (const auto& source : sources_below(floor, kCode))
      for (const auto& found : matches(source, pattern)) ADD_FAILURE() << found;
}

TEST(Floors, EveryHeaderHasPragmaOnce) {
  const std::regex pragma(R"((?:^|\n)#pragma once\n)");
  for (const char* folder : {"kernels", "runtime", "models", "launch", "tests", "bench"})
    for (const auto& source : sources_below(folder, R"(.*\.(h|cuh))")) {
      // Highway compiles these once an instruction set: they guard themselves with a toggle.
      if (source.path.ends_with("-inl.h")) continue;
      EXPECT_TRUE(std::regex_search(source.text, pragma)) << source.path;
    }
}

TEST(Floors, NoPathsOfADevelopersMachine) {
  // built from parts, so that this file does not find itself
  // and but for the home of the images of Kubernetes' MPI operator
  const std::regex pattern(std::string("((?:^|[\\s\"'=(:`])/(?!ho"
                                       "me/mpiuser/)(?:ro") +
                           "ot|ho" + "me|wo" + "rk|Us" + "ers)/[\\w.])");
  for (const char* folder : {"kernels", "runtime", "models", "launch", "tests", "bench", "cmake", "configs"})
    for (const auto& source :
         sources_below(folder, R"(.*\.(h|cpp|cu|cuh|proto|py|txt|cmake|yaml|json|md)|run|[a-z-]+)"))
      for (const auto& found : matches(source, pattern)) ADD_FAILURE() << found;
}

}  // namespace
