// SPDX-License-Identifier: Apache-2.0
#include "runtime/text/clip_tokenizer.h"

#include <algorithm>
#include <queue>

#include "kernels/core/error.h"
#include "runtime/files/json_text.h"
#include "runtime/text/unicode.h"

namespace lockstep {
namespace {

constexpr std::string_view kWordEnd = "</w>";

// CLIP's pattern names its special tokens as written here, whatever a folder says: where they are text, nothing joins them.
constexpr std::string_view kNamed[] = {"<|startoftext|>", "<|endoftext|>"};
constexpr std::string_view kEndings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};

bool stands_at(const std::vector<char32_t>& text, size_t at, std::string_view ascii) {
  return text.size() - at >= ascii.size() &&
         std::equal(ascii.begin(), ascii.end(), text.begin() + static_cast<std::ptrdiff_t>(at));
}

// The end of the piece that begins at text[at], which is no white space. A special token is three, "<|", "endoftext" and
// "|>", as what the pattern finds is split once more; `closing` keeps where its last one begins.
size_t piece_end(const std::vector<char32_t>& text, size_t at, size_t& closing) {
  if (at == closing) return at + 2;
  for (std::string_view named : kNamed)
    if (stands_at(text, at, named)) {
      closing = at + named.size() - 2;
      return at + 2;
    }
  for (std::string_view ending : kEndings)
    if (stands_at(text, at, ending)) return at + ending.size();
  const CharClass first = char_class(text[at]);
  size_t end = at + 1;
  if (first == CharClass::number) return end;
  while (end < text.size() && char_class(text[end]) == first) ++end;
  return end;
}

}  // namespace

ClipTokenizer::ClipTokenizer(const std::string& folder)
    : folder_(folder), files_(read_clip_files(folder)), content_hash_(files_.content_hash()) {
  int32_t rank = 0;
  for (const ClipFiles::Merge& merge : files_.merges)
    merges_[static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right)] = {rank++,
                                                                                             merge.both};
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_utf8(byte_symbol(static_cast<uint8_t>(byte)), symbol);
    bytes_[symbol] = static_cast<uint8_t>(byte);
  }
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < files_.symbols.size(); ++id) ids[files_.symbols[id]] = static_cast<int32_t>(id);
  for (const auto& [symbol, byte] : bytes_) {
    const auto id = [&](const std::string& text) {
      const auto found = ids.find(text);
      return found == ids.end() ? files_.unknown.id : found->second;
    };
    inner_[byte] = id(symbol);
    last_[byte] = id(symbol + std::string(kWordEnd));
  }
}

const ClipTokenizer::Merge* ClipTokenizer::merge_of(int32_t left, int32_t right) const {
  const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right));
  return found == merges_.end() ? nullptr : &found->second;
}

// A heap of neighbours that may merge: n log n, where looking for the lowest rank after each merge would be quadratic.
void ClipTokenizer::encode_piece(std::string_view bytes, std::vector<int32_t>& ids) const {
  struct Symbol {
    int32_t id, before, behind;  // places of the neighbours, -1: none; id -1: merged into the one before
  };
  struct Candidate {
    int32_t rank, at, both;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return std::pair(rank, at) > std::pair(other.rank, other.at);
    }
  };
  const auto count = static_cast<int32_t>(bytes.size());
  std::vector<Symbol> symbols(bytes.size());
  std::priority_queue<Candidate> heap;
  const auto symbol = [&](int32_t at) -> Symbol& { return symbols[static_cast<size_t>(at)]; };
  const auto consider = [&](int32_t at) {
    if (at < 0 || symbol(at).behind < 0) return;
    if (const Merge* merge = merge_of(symbol(at).id, symbol(symbol(at).behind).id))
      heap.push({merge->rank, at, merge->both});
  };
  for (int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[static_cast<size_t>(i)]);
    symbol(i) = {i + 1 < count ? inner_[byte] : last_[byte], i - 1, i + 1 < count ? i + 1 : -1};
  }
  for (int32_t i = 0; i < count; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Symbol& left = symbol(best.at);
    if (left.id < 0 || left.behind < 0) continue;
    Symbol& right = symbol(left.behind);
    const Merge* merge = merge_of(left.id, right.id);
    if (!merge || merge->rank != best.rank) continue;  // something else stands there by now
    left.id = best.both;
    right.id = -1;
    left.behind = right.behind;
    if (left.behind >= 0) symbol(left.behind).before = best.at;
    consider(left.before);
    consider(best.at);
  }
  for (int32_t i = 0; i >= 0 && i < count; i = symbol(i).behind) ids.push_back(symbol(i).id);
}

void ClipTokenizer::encode_plain(std::string_view utf8, std::vector<int32_t>& ids) const {
  std::vector<char32_t> text;
  text.reserve(utf8.size());
  for (char32_t c : nfc(utf8)) append_lower(c, text);
  std::string piece;
  size_t closing = text.size();
  for (size_t at = 0; at < text.size();) {
    if (char_class(text[at]) == CharClass::space) {
      ++at;
      continue;
    }
    piece.clear();
    for (const size_t end = piece_end(text, at, closing); at < end; ++at) append_utf8(text[at], piece);
    encode_piece(piece, ids);
  }
}

std::vector<int32_t> ClipTokenizer::encode(std::string_view utf8, SpecialTokens special) const {
  if (const auto bad = first_bad_utf8(utf8))
    throw Error(Exit::usage, "E_PROMPT_UTF8", fmt::format("the prompt is not UTF-8 at byte {}", *bad));
  std::vector<int32_t> ids;
  size_t plain = 0;  // where text begins that is not encoded yet
  for (size_t at = 0; special == SpecialTokens::as_tokens && at < utf8.size();) {
    const ClipFiles::Special* longest = nullptr;
    for (const ClipFiles::Special* s : {&files_.start, &files_.end, &files_.unknown, &files_.pad})
      if (utf8.substr(at).starts_with(s->text) && (!longest || s->text.size() > longest->text.size()))
        longest = s;
    if (!longest) {
      ++at;
      continue;
    }
    encode_plain(utf8.substr(plain, at - plain), ids);
    ids.push_back(longest->id);
    plain = at += longest->text.size();
  }
  encode_plain(utf8.substr(plain), ids);
  return ids;
}

std::string ClipTokenizer::tokens(std::string_view utf8, std::span<int32_t> out,
                                  SpecialTokens special) const {
  LOCKSTEP_ASSERT(out.size() >= 2, "{} ids", out.size());
  const std::vector<int32_t> ids = encode(utf8, special);
  const size_t kept = std::min(ids.size(), out.size() - 2);
  out[0] = start_id();
  std::copy_n(ids.begin(), kept, out.begin() + 1);
  out[kept + 1] = end_id();
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(kept) + 2, out.end(), pad_id());
  return text(std::span(ids).subspan(kept));
}

std::string ClipTokenizer::text(std::span<const int32_t> ids) const {
  std::string bytes;
  for (int32_t id : ids) {
    std::string_view left = symbol(id);
    const bool ends_word = left.ends_with(kWordEnd) && left != kWordEnd;
    if (ends_word) left.remove_suffix(kWordEnd.size());
    for (char32_t c : nfc(left)) {  // symbols of bytes are in that form
      std::string one;
      append_utf8(c, one);
      const auto byte = bytes_.find(one);
      bytes += byte == bytes_.end() ? one : std::string(1, static_cast<char>(byte->second));
    }
    if (ends_word) bytes += ' ';
  }
  if (bytes.ends_with(' ')) bytes.pop_back();
  return utf8_text(bytes);
}

}  // namespace lockstep
