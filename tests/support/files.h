// SPDX-License-Identifier: Apache-2.0
// Whole files as strings, and the Error that a call must throw.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "kernels/core/error.h"

namespace lockstep::testing {

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  EXPECT_TRUE(out.flush().good()) << path;
}

inline void overwrite_byte(const std::string& path, size_t offset, char byte) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(offset)).put(byte);
  EXPECT_TRUE(file.flush().good()) << path;
}

template <class Call>
std::optional<Error> error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

// The call throws an Error of this exit code whose text has these words.
template <class Call, class... Words>
void expect_error(Exit exit, Call&& call, const Words&... words) {
  const std::optional<Error> error = error_of(call);
  ASSERT_TRUE(error) << "no error, expected exit " << static_cast<int>(exit);
  EXPECT_EQ(error->code(), static_cast<int>(exit)) << error->what();
  for (const std::string& word : std::initializer_list<std::string>{words...})
    EXPECT_NE(std::string(error->what()).find(word), std::string::npos)
        << "no \"" << word << "\" in: " << error->what();
}

}  // namespace lockstep::testing
