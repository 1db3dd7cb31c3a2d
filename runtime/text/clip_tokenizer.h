// SPDX-License-Identifier: Apache-2.0
// CLIP's tokenizer: text to the numbers that a text encoder looks up. Byte-pair encoding (Sennrich, Haddow, Birch: "Neural
// machine translation of rare words with subword units", ACL 2016) over bytes, as transformers' CLIPTokenizer does it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/text/clip_files.h"

namespace lockstep {

// Special tokens that stand literally in a prompt ("<|endoftext|>"): transformers makes tokens of them. As text, a stranger's
// prompt cannot end where he likes.
enum class SpecialTokens { as_tokens, as_text };

// The steps: special tokens are split out; NFC; lower case of each code point; pieces by CLIP's pattern (endings such as 's,
// runs of letters, single digits, runs of anything else, white space between them left out); a piece's UTF-8 bytes as
// symbols, the last with </w>; of all neighbours that may merge those of the lowest rank, the leftmost first, until there
// are none. A symbol that is not in the vocabulary is the unknown token.
class ClipTokenizer {
 public:
  // A folder with vocab.json and merges.txt, or else tokenizer.json (transformers from 5 on writes that alone), and with
  // tokenizer_config.json and special_tokens_map.json, each of which may be missing. Of them count bos_token, eos_token,
  // unk_token, pad_token (special_tokens_map.json has the last word) and model_max_length; where there is none, or one
  // that means no limit, the length is CLIP's 77. Errors: no_input (66), data (65) naming file, and line or key.
  explicit ClipTokenizer(const std::string& folder);

  // Ids of the text, without start, end and limit. Error usage (64) naming the byte where it is not UTF-8.
  std::vector<int32_t> encode(std::string_view utf8, SpecialTokens special = SpecialTokens::as_tokens) const;
  // What a text encoder takes: start token, ids, end token, then pad tokens up to out.size(), which is at least 2. Of too
  // many ids the first out.size() - 2 are kept. Returns the text of the others, for a warning; "": all fit.
  std::string tokens(std::string_view utf8, std::span<int32_t> out,
                     SpecialTokens special = SpecialTokens::as_tokens) const;
  // Ids as text: lower case, with a space behind each word, none at the end. What half a letter leaves becomes U+FFFD.
  std::string text(std::span<const int32_t> ids) const;

  int64_t length() const { return files_.length; }                        // model_max_length
  int64_t vocabulary_size() const { return std::ssize(files_.symbols); }  // the largest id + 1
  const std::string& symbol(int32_t id) const { return files_.symbols.at(static_cast<size_t>(id)); }
  int32_t start_id() const { return files_.start.id; }
  int32_t end_id() const { return files_.end.id; }
  int32_t pad_id() const { return files_.pad.id; }

  const std::string& folder() const { return folder_; }              // that it was read from
  const std::string& content_hash() const { return content_hash_; }  // ClipFiles::content_hash

  // Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json, which transformers opens, into a
  // folder, made where missing. Errors: cannot_create (73), io (74).
  void save(const std::string& folder) const { write_clip_files(files_, folder); }

 private:
  struct Merge {
    int32_t rank, both;
  };
  const Merge* merge_of(int32_t left, int32_t right) const;  // null: they do not merge
  void encode_plain(std::string_view utf8, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view bytes, std::vector<int32_t>& ids) const;

  std::string folder_;
  ClipFiles files_;
  std::string content_hash_;
  std::unordered_map<uint64_t, Merge> merges_;      // by left id << 32 | right id
  std::array<int32_t, 256> inner_{}, last_{};       // ids of a byte within a piece, and at its end
  std::unordered_map<std::string, uint8_t> bytes_;  // by their symbols
};

}  // namespace lockstep
