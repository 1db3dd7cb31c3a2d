// SPDX-License-Identifier: Apache-2.0
// The fields of requests: one table an API, by which bodies are read, and which /openapi.json shows.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "launch/serve/answers.h"

namespace lockstep::serve {

struct Field {
  enum class Kind : uint8_t { text, texts, whole, number, flag, seed, object, any };
  const char* name;
  Kind kind;
  const char* help;
  double least = 0, most = 0;  // of whole, number; a model's or the server's own limits may be closer
  // Of another API's field: the field of /invocations that it is. nullptr: its value says nothing that could be done;
  // of kind `any` whatever it is, else as `only` has it.
  const char* ours = nullptr;
  // JSON values, separated by spaces, one of which it has: what else it could ask for is not supported.
  const char* only = nullptr;
  // How its value gets into a body of /invocations, where that is no mere copy.
  void (*put)(const Field& field, const nlohmann::json& value, nlohmann::json& body) = nullptr;
};

// The values of `only`, each as JSON.
std::vector<std::string> words_of(const char* only);

// Of /invocations and /models/NAME/invoke.
std::span<const Field> own_fields();

// The fields of such a body, at its top or under "parameters"; each must be asked for by its name, which is the table's.
class Fields {
 public:
  explicit Fields(const nlohmann::json& body);
  const nlohmann::json* find(const char* name);  // null: not given
  int64_t whole(const char* name, int64_t fallback, int64_t most);
  double number(const char* name, double fallback);
  bool flag(const char* name);  // false where nothing is said
  std::string text(const char* name, const std::string& fallback);
  // A random one of 53 bits for -1 and where nothing is said.
  uint64_t seed();
  // One string, or several; none where it is not given.
  std::vector<std::string> texts(const char* name, int64_t most);
  // What was not asked for would be ignored in silence.
  void expect_no_others() const;

 private:
  const nlohmann::json& body_;
  nlohmann::json parameters_ = nlohmann::json::object();
  std::vector<std::string> known_;
};

}  // namespace lockstep::serve
