// SPDX-License-Identifier: Apache-2.0
#include "tests/support/other_build.h"

#include <filesystem>
#include <fstream>

#include "tests/support/files.h"

namespace lockstep::testing {

bool make_other_build(const std::string& program, const std::string& copy) {
  // Name size 4, digest size 20, type 3, "GNU". The notes follow a program's headers, in its first page.
  const std::string note("\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0", 16);
  std::string page(4096, '\0');
  std::ifstream(program, std::ios::binary).read(page.data(), static_cast<std::streamsize>(page.size()));
  const size_t at = page.find(note);
  if (at == std::string::npos) return false;
  std::filesystem::copy_file(program, copy);
  overwrite_byte(copy, at + note.size(), static_cast<char>(page[at + note.size()] ^ 1));
  return true;
}

}  // namespace lockstep::testing
