// SPDX-License-Identifier: Apache-2.0
// What the checks of nets' configurations say: Error(Exit::config, id) naming the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

namespace lockstep {

class ConfigCheck {
 public:
  explicit ConfigCheck(const char* id) : id_(id) {}

  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const;
  void expect_choice(const std::string& key, const std::string& value,
                     std::initializer_list<const char*> choices) const;
  // The list of the levels' channels: some, and not more than sizes can be halved.
  void expect_levels(const std::string& key, size_t levels) const;
  // A list with an entry for each level.
  void expect_size(const std::string& key, size_t size, size_t levels) const;
  // `parts` ("groups", "heads") of the key divide the channels.
  void expect_divides(const std::string& key, int64_t count, const char* parts, int64_t channels) const;

 private:
  const char* id_;
};

}  // namespace lockstep
