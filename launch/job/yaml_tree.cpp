// SPDX-License-Identifier: Apache-2.0
#include "launch/job/yaml_tree.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <unordered_set>

#include "runtime/files/utf8.h"

namespace lockstep::job {

std::string Place::text() const {
  if (!source) return {};
  return in_file() ? fmt::format("{}:{}:{}", *source, line, column) : *source;
}

const Node* Node::find(std::string_view name) const {
  for (const Node& child : children)
    if (kind == Kind::map && child.key == name) return &child;
  return nullptr;
}

const char* Node::kind_name() const {
  switch (kind) {
    case Kind::null:
      return "nothing";
    case Kind::scalar:
      return "a single value";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a map";
  }
  return "";
}

Error job_error(const Place& place, std::string_view key, std::string_view id, std::string message) {
  Error error(Exit::config, std::string(id), std::move(message));
  error.add_place("job", place.text());
  if (!key.empty()) error.add_place("key", printable(key, 120));
  return error;
}

std::string shown(std::string_view text) { return fmt::format("\"{}\"", printable(text, 60)); }

std::string join_path(std::string_view prefix, std::string_view name) {
  if (prefix.empty() || name.empty()) return std::string(prefix.empty() ? name : prefix);
  return fmt::format("{}.{}", prefix, name);
}

namespace {

class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, const std::string& source, bool is_file, std::string key_prefix)
      : text_(text),
        source_(std::make_shared<std::string>(source)),
        is_file_(is_file),
        prefix_(std::move(key_prefix)) {
    line_starts_.push_back(0);
    for (size_t i = 0; i < text.size(); ++i)
      if (text[i] == '\n') line_starts_.push_back(i + 1);
  }

  Place place(size_t byte) const {
    if (!is_file_) return {source_, 0, 0};
    const auto next = std::upper_bound(line_starts_.begin(), line_starts_.end(), byte);
    const size_t start = *(next - 1);
    const auto column =
        std::count_if(text_.begin() + static_cast<std::ptrdiff_t>(start),
                      text_.begin() + static_cast<std::ptrdiff_t>(std::min(byte, text_.size())),
                      [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
    return {source_, static_cast<int>(next - line_starts_.begin()), static_cast<int>(column) + 1};
  }
  Place place(const YAML::Mark& mark) const { return place(static_cast<size_t>(std::max(0, mark.pos))); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      throw job_error(place(mark), "", "E_JOB_DOCUMENTS", "a second document: a job file holds one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add(new_node(mark, Node::Kind::null));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw job_error(place(mark), path(), "E_JOB_ALIAS",
                    "aliases (*name) are not supported: write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    refuse_unclosed_quote(mark);
    Node node = new_node(mark, Node::Kind::scalar);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::list);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, Node::Kind::map);
  }
  void OnMapEnd() override { close(); }

  std::string path() const {
    std::string out = prefix_;
    for (const Frame& frame : stack_) {
      if (frame.node.kind == Node::Kind::list)
        out += fmt::format("[{}]", frame.node.children.size());
      else if (frame.has_key)
        out = join_path(out, frame.key);
    }
    return out;
  }

  int documents() const { return documents_; }
  Node take() {
    if (bad_key_) throw *bad_key_;
    return std::move(root_);
  }

 private:
  struct Frame {
    Node node;
    bool has_key = false;
    std::string key;
    Place key_place;
    std::unordered_set<std::string> keys;
  };

  Node new_node(const YAML::Mark& mark, Node::Kind kind) const {
    Node node;
    node.kind = kind;
    node.place = place(mark);
    return node;
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0)
      throw job_error(place(mark), path(), "E_JOB_ALIAS",
                      "anchors (&name) are not supported: write the value out");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!")
      throw job_error(place(mark), path(), "E_JOB_TAG",
                      fmt::format("tag {}: types come from the key, tags are not supported", shown(tag)));
  }
  // yaml-cpp closes a quote by itself where the text ends with a line break.
  void refuse_unclosed_quote(const YAML::Mark& mark) const {
    auto i = static_cast<size_t>(std::max(0, mark.pos));
    if (i >= text_.size() || (text_[i] != '"' && text_[i] != '\'')) return;
    const char quote = text_[i];
    for (++i; i < text_.size(); ++i) {
      const bool doubled = quote == '\'' && text_.substr(i, 2) == "''";
      if ((quote == '"' && text_[i] == '\\') || doubled)
        ++i;
      else if (text_[i] == quote)
        return;
    }
    throw job_error(place(mark), path(), "E_JOB_SYNTAX", "not YAML: the quote is not closed");
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (stack_.size() == kMaxJobDepth)
      throw job_error(place(mark), path(), "E_JOB_DEPTH",
                      fmt::format("nested deeper than {} levels", kMaxJobDepth));
    stack_.push_back({new_node(mark, kind), false, {}, {}, {}});
  }
  void close() {
    Node node = std::move(stack_.back().node);
    stack_.pop_back();
    add(std::move(node));
  }
  void add(Node node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = stack_.back();
    if (frame.node.kind == Node::Kind::map && !frame.has_key) {
      take_key(frame, node);
      return;
    }
    if (frame.has_key) {
      node.key = std::move(frame.key);
      node.key_place = frame.key_place;
      // Nothing has no place of its own: yaml-cpp names the next token's.
      if (node.kind == Node::Kind::null) node.place = node.key_place;
      frame.has_key = false;
    }
    frame.node.children.push_back(std::move(node));
  }
  void take_key(Frame& frame, const Node& node) {
    if (node.kind != Node::Kind::scalar || node.text.empty()) {
      // Not thrown yet: yaml-cpp takes the start of an unclosed list or map for a key before it notices.
      if (!bad_key_)
        bad_key_ = job_error(node.place, path(), "E_JOB_TYPE",
                             fmt::format("a key must be a word, found {}", node.kind_name()));
      frame.key.clear();
      frame.has_key = true;
      return;
    }
    if (node.text == "<<" && !node.quoted)
      throw job_error(node.place, join_path(path(), "<<"), "E_JOB_ALIAS",
                      "merge keys (<<) are not supported: write the values out");
    if (!frame.keys.insert(node.text).second) {
      const Node* first = frame.node.find(node.text);
      throw job_error(node.place, join_path(path(), node.text), "E_JOB_DUPLICATE",
                      fmt::format("duplicate key; first given at {}", first->key_place.text()));
    }
    frame.key = node.text;
    frame.key_place = node.place;
    frame.has_key = true;
  }
  std::string_view text_;
  std::shared_ptr<const std::string> source_;
  bool is_file_;
  std::string prefix_;
  std::vector<size_t> line_starts_;
  std::vector<Frame> stack_;
  int documents_ = 0;
  std::optional<Error> bad_key_;
  Node root_;
};

// Where in a YAML text a character stands, as far as tabs and invisible characters want to know: in a quote, a comment,
// brackets, or behind nothing but white space in its line.
class Lexer {
 public:
  // Of text[i], for each i in turn.
  void next(std::string_view text, size_t i) {
    const char c = text[i], before = i > 0 ? text[i - 1] : '\n';
    const bool first = begins_token(before);
    if (c == '\n') {
      comment_ = false, line_start_ = i + 1;
    } else if (comment_ || escaped_) {
      escaped_ = false;
    } else if (quote_ != 0) {
      if (quote_ == '"' && c == '\\')
        escaped_ = true;
      else if (c == quote_)
        quote_ = 0;  // '' within single quotes closes and opens again
    } else if (c == '#' && (before == ' ' || before == '\t' || before == '\n')) {
      comment_ = true;
    } else if ((c == '"' || c == '\'') && (first || before == c)) {
      quote_ = c;
    } else if ((c == '[' || c == '{') && (first || depth_ > 0)) {
      ++depth_;
    } else if ((c == ']' || c == '}') && depth_ > 0) {
      --depth_;
    }
  }
  bool quoted() const { return quote_ != 0; }
  bool plain() const { return !comment_ && quote_ == 0; }
  // Whether nothing but white space stands before this character in its line, outside quotes.
  bool leads(std::string_view text, size_t i) const {
    return plain() && text.find_first_not_of(" \t", line_start_) >= i;
  }
  // Whether a line's content is indented by this character, which counts outside brackets.
  bool indents(std::string_view text, size_t i) const {
    if (!leads(text, i) || depth_ > 0) return false;
    const size_t content = text.find_first_not_of(" \t", line_start_);
    return content != std::string_view::npos && text[content] != '\n' && text[content] != '#';
  }

 private:
  static bool begins_token(char before) {
    return std::string_view(" \t\n[{,:").find(before) != std::string_view::npos;
  }
  bool comment_ = false, escaped_ = false;
  char quote_ = 0;
  int depth_ = 0;
  size_t line_start_ = 0;
};

// The character that a well-formed text begins with, and its name, where it is white or has no width and is none that YAML
// takes for white space.
std::optional<std::pair<uint32_t, std::string>> invisible_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  uint32_t c = byte(0);
  if ((c & 0xe0) == 0xc0)
    c = (c & 0x1f) << 6 | (byte(1) & 0x3f);
  else if ((c & 0xf0) == 0xe0)
    c = (c & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
  else
    return std::nullopt;
  struct Range {
    uint32_t first, last;
    const char* name;
  };
  // Unicode 15: general category Zs, Zl, Zp, and what of Cf and Cc is found in pasted text.
  static constexpr Range kInvisible[] = {{0x80, 0x9f, "a control character"},
                                         {0xa0, 0xa0, "no-break space"},
                                         {0xad, 0xad, "soft hyphen"},
                                         {0x1680, 0x1680, "ogham space mark"},
                                         {0x180e, 0x180e, "vowel separator"},
                                         {0x2000, 0x200a, "a typographic space"},
                                         {0x200b, 0x200b, "zero width space"},
                                         {0x200c, 0x200f, "a joiner or direction mark"},
                                         {0x2028, 0x2029, "line or paragraph separator"},
                                         {0x202a, 0x202e, "a direction mark"},
                                         {0x202f, 0x202f, "narrow no-break space"},
                                         {0x205f, 0x205f, "mathematical space"},
                                         {0x2060, 0x206f, "an invisible format character"},
                                         {0x3000, 0x3000, "ideographic space"},
                                         {0xfeff, 0xfeff, "byte order mark"}};
  for (const Range& r : kInvisible)
    if (c >= r.first && c <= r.last) return std::pair{c, std::string(r.name)};
  return std::nullopt;
}

void refuse_bad_bytes(std::string_view text, const Builder& builder, const std::string& key) {
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    Error error = job_error(
        builder.place(bad), key, "E_JOB_UTF8",
        fmt::format("byte 0x{:02x} at offset {} is not UTF-8", static_cast<unsigned char>(text[bad]), bad));
    if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
      error.set_hint("it is UTF-16: save it as UTF-8");
    throw error;
  }
  Lexer lexer;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    lexer.next(text, i);
    if (c == '\t' && lexer.indents(text, i))
      throw job_error(builder.place(i), key, "E_JOB_CHARACTER", "a tab: YAML indents with spaces");
    if ((c < 0x20 && c != '\n' && c != '\t') ||
        (c == 0x7f && !lexer.quoted()))  // within quotes as JSON has it
      throw job_error(builder.place(i), key, "E_JOB_CHARACTER", fmt::format("control character 0x{:02x}", c));
    if (lexer.plain())
      if (const auto invisible = invisible_character(text.substr(i)))
        throw job_error(
            builder.place(i), key, "E_JOB_CHARACTER",
            fmt::format("U+{:04X} ({}), which looks like {}", invisible->first, invisible->second,
                        invisible->second.find("space") == std::string::npos ? "nothing" : "a space"));
  }
}

// Where no content is indented by them (an empty line, a comment, within brackets), which yaml-cpp refuses all the same. Of as
// many bytes, so that places stay.
void spaces_for_leading_tabs(std::string& text) {
  Lexer lexer;
  for (size_t i = 0; i < text.size(); ++i) {
    lexer.next(text, i);
    if (text[i] == '\t' && lexer.leads(text, i)) text[i] = ' ';
  }
}

}  // namespace

Node parse_yaml(std::string_view raw, const std::string& source, bool is_file,
                const std::string& key_prefix) {
  if (raw.starts_with("\xef\xbb\xbf")) raw.remove_prefix(3);
  std::string text;
  text.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i)
    if (raw[i] != '\r' || i + 1 == raw.size() || raw[i + 1] != '\n') text += raw[i];

  Builder builder(text, source, is_file, key_prefix);
  if (text.size() > kMaxJobBytes)
    throw job_error(builder.place(size_t{0}), key_prefix, "E_JOB_SIZE",
                    fmt::format("larger than {} bytes: not a job file", kMaxJobBytes));
  refuse_bad_bytes(text, builder, key_prefix);
  spaces_for_leading_tabs(text);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    throw job_error(builder.place(e.mark), builder.path(), "E_JOB_SYNTAX",
                    fmt::format("not YAML: {}", e.msg));
  }
  if (builder.documents() == 0)
    throw job_error(builder.place(size_t{0}), key_prefix, "E_JOB_EMPTY",
                    is_file ? "the file is empty" : "no value given");
  return builder.take();
}

}  // namespace lockstep::job
