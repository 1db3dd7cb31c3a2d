// SPDX-License-Identifier: Apache-2.0
#include "models/config_check.h"

#include "kernels/core/error.h"

namespace lockstep {

using std::string;

void ConfigCheck::refuse(const string& key, const string& problem) const {
  throw Error(Exit::config, id_, problem).at("key", key);
}

void ConfigCheck::expect_choice(const string& key, const string& value,
                                std::initializer_list<const char*> choices) const {
  string all;
  for (const char* c : choices) {
    if (value == c) return;
    all += (all.empty() ? "" : ", ") + string(c);
  }
  refuse(key, fmt::format("{} is not supported; one of {}", value, all));
}

void ConfigCheck::expect_levels(const string& key, size_t levels) const {
  constexpr size_t kMost = 17;  // 65536 pixels a side, halved down to one
  if (levels == 0) refuse(key, "the list is empty");
  if (levels > kMost) refuse(key, fmt::format("{} levels, expected at most {}", levels, kMost));
}

void ConfigCheck::expect_size(const string& key, size_t size, size_t levels) const {
  if (size != levels) refuse(key, fmt::format("{} entries for {} block_out_channels", size, levels));
}

void ConfigCheck::expect_divides(const string& key, int64_t count, const char* parts,
                                 int64_t channels) const {
  if (channels % count) refuse(key, fmt::format("{} {} do not divide {} channels", count, parts, channels));
}

}  // namespace lockstep
