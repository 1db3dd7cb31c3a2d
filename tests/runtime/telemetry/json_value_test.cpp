// SPDX-License-Identifier: Apache-2.0
#include "runtime/files/json_value.h"

#include <gtest/gtest.h>

#include "tests/support/files.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

template <class T>
void expect_refused(const json& value, const std::string& expected) {
  const json object = {{"key", value}};
  expect_error(
      Exit::data, [&] { json_get<T>(object, "key", "dir/meta.json", "of."); }, "dir/meta.json", "of.key",
      expected + ", found " + value.dump());
}

TEST(JsonGet, TakesWhatHasTheType) {
  const json j = {{"flag", true},        {"count", 7},          {"rate", 0.5},
                  {"word", "w"},         {"words", {"a", "b"}}, {"none", json::array()},
                  {"map", {{"a", "b"}}}, {"most", INT64_MAX}};
  EXPECT_TRUE(json_get<bool>(j, "flag", ""));
  EXPECT_EQ(json_get<int64_t>(j, "count", ""), 7);
  EXPECT_EQ(json_get<int64_t>(j, "most", ""), INT64_MAX);
  EXPECT_EQ(json_get<double>(j, "count", ""), 7.0);
  EXPECT_EQ(json_get<double>(j, "rate", ""), 0.5);
  EXPECT_EQ(json_get<std::string>(j, "word", ""), "w");
  EXPECT_EQ(json_get<std::vector<std::string>>(j, "words", "").size(), 2u);
  EXPECT_TRUE(json_get<std::vector<std::string>>(j, "none", "").empty());
  EXPECT_EQ((json_get<std::map<std::string, std::string>>(j, "map", "")["a"]), "b");
  EXPECT_EQ(json_get_or<std::string>(j, "other", "else", ""), "else");
  EXPECT_EQ(json_get_or<std::string>(j, "word", "else", ""), "w");
}

TEST(JsonGet, NamesFileKeyAndWhatItFound) {
  expect_refused<bool>(1, "true or false");
  expect_refused<int64_t>(1.5, "a whole number");
  expect_refused<int64_t>(true, "a whole number");
  expect_refused<int64_t>(UINT64_MAX, "a whole number");
  expect_refused<int32_t>(int64_t{1} << 40, "a whole number");
  expect_refused<double>(nullptr, "a number");
  expect_refused<double>("0.5", "a number");
  expect_refused<std::string>(3, "a string");
  expect_refused<std::vector<std::string>>(json({"a", 1}), "a list of strings");
  expect_refused<std::map<std::string, std::string>>(json{{"a", 1}}, "an object of strings");
  expect_refused<json::object_t>(json::array(), "an object");
  expect_refused<json::array_t>(json::object(), "a list");
  for (const json& nothing : {json::object(), json(nullptr), json(3), json::array({"key"})}) {
    expect_error(
        Exit::data, [&] { json_get<bool>(nothing, "key", "meta.json"); }, "meta.json", "key", "no such key");
    EXPECT_TRUE(json_member(nothing, "key").is_null());
  }
  expect_error(
      Exit::data,
      [&] {
        json_get_or<bool>(json{{"key", 3}}, "key", true, "meta.json");
      },
      "meta.json", "key");
  expect_error(
      Exit::data, [&] { json_get_or<bool>(json(3), "key", true, "meta.json"); }, "meta.json", "key");
}

}  // namespace
}  // namespace lockstep::testing
