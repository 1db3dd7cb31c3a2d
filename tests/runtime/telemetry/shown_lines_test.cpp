// SPDX-License-Identifier: Apache-2.0
// Text of any bytes on its way to a terminal, a log or a JSON file.
#include <gtest/gtest.h>

#include "runtime/files/json_text.h"
#include "runtime/files/utf8.h"
#include "runtime/telemetry/say.h"

namespace lockstep::testing {
namespace {

TEST(ShownLines, KeepWhatCanBeReadAndEscapeTheRest) {
  EXPECT_EQ(shown_lines("two\nlines\r\n\tdög 🐕"), "two\nlines\r\n\tdög 🐕");
  EXPECT_EQ(shown_lines("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(shown_lines("over\rwritten"), "over\\x0dwritten");
  EXPECT_EQ(shown_lines("\r"), "\\x0d");
  EXPECT_EQ(shown_lines("\u009b2J \u0080 \u00a0"), "\\x9b2J \\x80 \u00a0");
  EXPECT_EQ(shown_lines("\x9b"
                        "2J caf\xe9"),
            "\\x9b"
            "2J caf\\xe9");
  EXPECT_EQ(shown_lines(std::string("\0\x7f", 2)), "\\x00\\x7f");
  EXPECT_EQ(shown_lines(""), "");
  EXPECT_EQ(shown_lines(shown_lines("\x1b")), "\\x1b");
}

TEST(Printable, MakesNoSecondLine) {
  EXPECT_EQ(printable("a\n\tb\u0085"), "a\\x0a\\x09b\\x85");
  EXPECT_EQ(printable("dög", 2), "d...");
}

TEST(JsonText, EscapesWhatTerminalsHeed) {
  const nlohmann::json object = {{"a\x7f", "\u009b2J\x1b\u00a0"}};
  EXPECT_EQ(json_text(object), "{\"a\\u007f\":\"\\u009b2J\\u001b\u00a0\"}");
  EXPECT_EQ(nlohmann::json::parse(json_text(object)), object);
}

TEST(Say, EscapesAndStyledTextIsAsItIs) {
  ::testing::internal::CaptureStdout();
  say(stdout, "\x1b[1m\n");
  say_styled(stdout, "\x1b[1m\n");
  print_out("{}\n", "\x1b[1m");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "\\x1b[1m\n\x1b[1m\n\\x1b[1m\n");
}

}  // namespace
}  // namespace lockstep::testing
