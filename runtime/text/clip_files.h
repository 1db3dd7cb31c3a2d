// SPDX-License-Identifier: Apache-2.0
// The folder of a CLIP tokenizer as transformers writes and reads it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct ClipFiles {
  struct Merge {
    int32_t left, right, both;  // ids: two neighbours, and what they become
  };
  struct Special {
    std::string text;
    int32_t id = 0;
  };

  std::vector<std::string> symbols;  // by id; "": no such id
  std::vector<Merge> merges;         // the first has the lowest rank
  Special start{"<|startoftext|>"}, end{"<|endoftext|>"}, unknown{"<|endoftext|>"}, pad{"<|endoftext|>"};
  int64_t length = 77;  // model_max_length: ids with start and end

  // SHA-256 (hex) of all of it, whichever files it was read from.
  std::string content_hash() const;
};

// What bytes look like in vocab.json: printable ones as the code point of that number, the others, in ascending order, as
// U+0100 and on.
char32_t byte_symbol(uint8_t byte);

// As ClipTokenizer's constructor says.
ClipFiles read_clip_files(const std::string& folder);
// As ClipTokenizer::save says.
void write_clip_files(const ClipFiles& files, const std::string& folder);

}  // namespace lockstep
