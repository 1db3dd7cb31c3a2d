// SPDX-License-Identifier: Apache-2.0
// What the standard library and nlohmann throw reaches a user as a bug of ours (70). So the sources ask in ways that do not
// throw, or that say what happened as an Error.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>
#include <sstream>

#include "tests/support/files.h"

namespace lockstep::testing {
namespace {
namespace fs = std::filesystem;

struct Rule {
  std::string name;
  std::regex call;
  std::string instead;
};

// Calls of std::filesystem with one argument too few for an error_code.
const std::vector<Rule> kRules = {
    {"filesystem query",
     std::regex(
         R"(\b(?:fs|filesystem)::(?:exists|is_directory|is_regular_file|file_size|is_empty|is_symlink|)"
         R"(last_write_time|read_symlink|canonical|absolute|create_directory|create_directories|remove|)"
         R"(remove_all|space|status)\(([^,()]|\([^()]*\))*\))"),
     "runtime/files/path.h, or an error_code"},
    {"current_path, temp_directory_path", std::regex(R"(\b(?:current_path|temp_directory_path)\(\))"),
     "absolute_path(\".\")"},
    {"directory_iterator in a loop", std::regex(R"(for \([^;]*directory_iterator)"), "names_in()"},
    {"entry's query", std::regex(R"(\bentry(?:\.|->)(?:is_directory|is_regular_file|exists|file_size)\(\))"),
     "path_kind()"},
    {"json::dump", std::regex(R"((?:\.|->)dump\()"), "json_text()"},
    {"stoi and its like", std::regex(R"(\bsto(?:i|l|ll|ul|ull|f|d|ld)\()"), "std::from_chars"},
    {"json::parse that throws", std::regex(R"(json::parse\((?![^;]*nullptr, false\))[^;]*\))"),
     "parse(text, nullptr, false)"},
    {"json::at, json::value", std::regex(R"((?:\.|->)(?:at\("[^"]*"\)|value\("))"),
     "json_get() and json_member()"},
    // They throw, or let a file's name order the terminal about.
    {"words past say()",
     std::regex(
         R"(fmt::print\(|\b(?:puts|printf)\(|\bf(?:puts|write|printf)\((?:[^;]*\b)?std(?:out|err)\b|std::c(?:out|err)\b)"),
     "say(), report_error() or print_out()"},
};

// "FILE: RULE" -> why it is right there.
const std::map<std::string, std::string> kAllowed = {
    {"runtime/files/json_text.h: json::dump", "the one place that says what becomes of bad UTF-8"},
    {"runtime/telemetry/say.cpp: words past say()", "the one place that writes them"},
    {"runtime/telemetry/log.cpp: words past say()", "say() logs what it cannot say"},
    {"runtime/files/mapped_file.cpp: words past say()", "of a program without a log"},
    {"kernels/vendor/onednn.cpp: words past say()", "a number alone; kernels know no say()"},
    {"kernels/vendor/cudnn.cpp: directory_iterator in a loop",
     "a folder of the toolkit; kernels know no names_in()"},
    {"runtime/checkpoint/manifest.cpp: json::dump", "replaces bad UTF-8, and escapes all that is not ASCII"},
    {"runtime/comm/error_text.cpp: json::parse that throws", "what another rank of this program wrote"},
    {"runtime/graph/kernel_table.cpp: json::parse that throws", "what another rank of this program wrote"},
    {"runtime/comm/error_text.cpp: json::at, json::value", "what another rank of this program wrote"},
    {"launch/job/availability.cpp: json::at, json::value",
     "a map of ours, asked before whether it has the key"},
    {"runtime/training/trainer_resume.cpp: json::parse that throws", "what rank 0 of this program wrote"},
    {"launch/serve/body.cpp: json::parse that throws", "it is told not to, behind a callback"},
    {"runtime/text/clip_files.cpp: json::parse that throws", "caught there, for the parser's own words"},
    {"models/diffusion/scheduler_config.cpp: json::parse that throws",
     "caught there, for the parser's own words"},
};

std::string without_comments(const std::string& text) {
  return std::regex_replace(text, std::regex("//[^\n]*"), "");
}

std::vector<std::string> findings(const std::string& name, const std::string& text) {
  std::vector<std::string> found;
  const std::string code = without_comments(text);
  for (const Rule& rule : kRules)
    for (std::sregex_iterator it(code.begin(), code.end(), rule.call), end; it != end; ++it)
      found.push_back(name + ": " + rule.name);
  return found;
}

TEST(ThrowingCalls, AreSeen) {
  for (const char* line :
       {"fs::exists(path)", "std::filesystem::is_directory(folder.string())",
        "fs::create_directories(a + \"/b\");", "std::filesystem::current_path()",
        "for (const auto& e : fs::directory_iterator(dir, error)) f(e);", "entry.is_directory()", "j.dump()",
        "it->dump(2)", "std::stoi(text)", "std::stod(s)", "json::parse(text);", "fmt::print(stderr, \"x\")",
        "fmt::print(\"x\")", "std::fputs(text.c_str(), stderr)", "std::printf(\"x\")", "std::cout << x",
        "meta.at(\"step\")", "it->at(\"a b\").get<int>()", "meta.value(\"init_from\", \"\")"})
    EXPECT_EQ(findings("f", line).size(), 1u) << line;
  for (const char* line :
       {"fs::exists(path, error)", "fs::create_directories(folder, error)", "json_text(j, 2)",
        "json::parse(text, nullptr, false)", "current_path(none)", "// j.dump()", "custom(stoic)",
        "Error(x).at(\"file\", path)", "json_get<bool>(meta, \"a\", file)", "graph.value(v)",
        "std::snprintf(text, 3, \"x\")", "print_out(\"x\")", "inputs(x)", "std::fwrite(p, 1, n, file)"})
    EXPECT_EQ(findings("f", line).size(), 0u) << line;
}

TEST(ThrowingCalls, AreNotMade) {
  std::map<std::string, bool> used;
  for (const auto& [place, why] : kAllowed) used[place] = false;
  int files = 0;
  for (const char* floor : {"launch", "models", "runtime", "kernels"})
    for (const auto& entry : fs::recursive_directory_iterator(std::string(LOCKSTEP_SOURCE_DIR "/") + floor)) {
      const std::string extension = entry.path().extension();
      if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") continue;
      ++files;
      const std::string name = fs::relative(entry.path(), LOCKSTEP_SOURCE_DIR).string();
      for (const std::string& finding : findings(name, read_file(entry.path())))
        if (const auto allowed = used.find(finding); allowed != used.end())
          allowed->second = true;
        else
          ADD_FAILURE() << finding << " may throw past every Error";
    }
  EXPECT_GT(files, 100);
  for (const auto& [place, is_used] : used) EXPECT_TRUE(is_used) << place << " is allowed, and not there";
}

}  // namespace
}  // namespace lockstep::testing
