// SPDX-License-Identifier: Apache-2.0
// A file read front to back, whose content may be gzip-compressed (told by its first two bytes, not its
// name).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/core/error.h"

namespace lockstep {

class InputFile {
 public:
  enum class Gzip { inflate, as_is };
  // Error no_input (66), no_permission (77) or io (74).
  explicit InputFile(std::string path, Gzip gzip = Gzip::inflate);
  ~InputFile();
  InputFile(InputFile&&) noexcept;

  // Exactly n bytes of content. Error data (65) with the offset where it ends early or the gzip stream is
  // damaged.
  void read(void* to, int64_t n);
  // The same, but less at the end of the content, and then 0. Returns how many.
  int64_t read_up_to(void* to, int64_t n);
  // Checks that nothing follows: neither content nor, after a gzip stream, anything else; checks the gzip
  // stream's CRC and length.
  void expect_end();
  // Checks that exactly n bytes of content follow: by the file's size, or by reading over them where they are compressed.
  void expect_left(int64_t n);
  // An upper bound of the content that can still follow: exact for a plain file, deflate's largest ratio for
  // a compressed one. What a header claims is held against it before anything is allocated.
  int64_t at_most_left() const;
  int64_t offset() const;  // in the content
  const std::string& path() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The Error for a path that cannot be opened or read, from errno.
Error cannot_read(const std::string& path, int error_number);

}  // namespace lockstep
