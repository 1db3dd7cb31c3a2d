// SPDX-License-Identifier: Apache-2.0
#include "runtime/text/clip_files.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "runtime/checkpoint/file_io.h"
#include "runtime/data/hash.h"
#include "runtime/files/json_value.h"
#include "runtime/files/path.h"

namespace lockstep {
namespace {

using nlohmann::json;

constexpr size_t kMostTokenizerBytes = 64 << 20;  // of one file; CLIP's largest has 4 MB
constexpr int32_t kMostIds = 1 << 22;             // a text encoder has a row for each
constexpr int64_t kMostLength = 1 << 20;

Error bad_tokenizer(const std::string& file, std::string message) {
  return Error(Exit::data, "E_TOKENIZER", std::move(message)).at("file", file);
}

json read_json_object(const std::string& file) {
  const std::string text = read_text_file(file, kMostTokenizerBytes);
  json value;
  try {
    value = json::parse(text);
  } catch (const json::parse_error& e) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(e.byte, text.size()));
    throw bad_tokenizer(file, "is no JSON").at("line", 1 + std::count(text.begin(), end, '\n'));
  } catch (const json::out_of_range& e) {
    throw bad_tokenizer(file, fmt::format("is no JSON: {}", e.what()));  // a number that is too large
  }
  if (!value.is_object()) throw bad_tokenizer(file, "is no JSON object");
  return value;
}

// Symbols by id, and ids by symbol.
class Vocabulary {
 public:
  Vocabulary(const json::object_t& ids, const std::string& file) {
    for (const auto& [symbol, id] : ids) {
      if (!JsonType<int32_t>::holds(id) || id.get<int32_t>() < 0 || id.get<int32_t>() >= kMostIds)
        throw bad_tokenizer(file,
                            fmt::format("expected an id from 0 to {}, found {}", kMostIds - 1, json_text(id)))
            .at("key", symbol);
      add(symbol, id.get<int32_t>(), file);
    }
    if (ids_.empty()) throw bad_tokenizer(file, "the vocabulary is empty");
  }

  void add(const std::string& symbol, int32_t id, const std::string& file) {
    if (symbol.empty()) throw bad_tokenizer(file, fmt::format("id {} has an empty symbol", id));
    if (static_cast<size_t>(id) >= symbols.size()) symbols.resize(static_cast<size_t>(id) + 1);
    std::string& place = symbols[static_cast<size_t>(id)];
    if (!place.empty() && place != symbol)
      throw bad_tokenizer(file, fmt::format("\"{}\" and \"{}\" have the same id {}", place, symbol, id));
    if (const auto [known, is_new] = ids_.emplace(symbol, id); !is_new && known->second != id)
      throw bad_tokenizer(file, fmt::format("\"{}\" has the ids {} and {}", symbol, known->second, id));
    place = symbol;
  }
  std::optional<int32_t> find(const std::string& symbol) const {
    const auto found = ids_.find(symbol);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  std::vector<std::string> symbols;  // by id

 private:
  std::unordered_map<std::string, int32_t> ids_;
};

// Adds merges and refuses those that cannot be; `place` gives an error its line or key.
class Merges {
 public:
  Merges(const Vocabulary& vocabulary, std::string file) : vocabulary_(vocabulary), file_(std::move(file)) {}

  void add(const std::string& left, const std::string& right, std::string_view place, int64_t number) {
    const auto id = [&](const std::string& symbol) {
      if (const auto found = vocabulary_.find(symbol)) return *found;
      throw bad_tokenizer(file_, fmt::format("\"{}\" is not in the vocabulary", utf8_text(symbol)))
          .at(place, number);
    };
    const ClipFiles::Merge merge{id(left), id(right), id(left + right)};
    const uint64_t pair = static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right);
    if (!seen_.insert(pair).second)
      throw bad_tokenizer(file_, fmt::format("\"{} {}\" stands twice", left, right)).at(place, number);
    all.push_back(merge);
  }
  // "left right"
  void add(std::string_view line, std::string_view place, int64_t number) {
    const size_t space = line.find(' ');
    if (space == 0 || space + 1 >= line.size() || line.find(' ', space + 1) != std::string_view::npos)
      throw bad_tokenizer(file_, fmt::format("expected two symbols with a space between them, found \"{}\"",
                                             utf8_text(std::string(line.substr(0, 80)))))
          .at(place, number);
    add(std::string(line.substr(0, space)), std::string(line.substr(space + 1)), place, number);
  }

  std::vector<ClipFiles::Merge> all;

 private:
  const Vocabulary& vocabulary_;
  std::string file_;
  std::unordered_set<uint64_t> seen_;
};

std::vector<ClipFiles::Merge> read_merges(const std::string& file, const Vocabulary& vocabulary) {
  const std::string text = read_text_file(file, kMostTokenizerBytes);
  Merges merges(vocabulary, file);
  std::string_view left = text;
  for (int64_t number = 1; !left.empty(); ++number) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool is_version = number == 1 && line.starts_with("#version");
    const bool is_end = line.empty() && left.empty();
    if (!is_version && !is_end) merges.add(line, "line", number);
  }
  return merges.all;
}

// What tokenizer.json can say and we do not do. It holds the steps of any tokenizer; CLIP's are one of them.
void expect_clip(const json& all, const std::string& file) {
  const json& model = json_member(all, "model");
  const auto expect = [&](const json& found, std::string_view expected, const std::string& key) {
    if (found != json::parse(expected, nullptr, false))
      throw bad_tokenizer(file, fmt::format("expected {} as CLIP's tokenizer has it, found {}", expected,
                                            json_text(found).substr(0, 200)))
          .at("key", key);
  };
  expect(json_member(model, "type"), R"("BPE")", "model.type");
  expect(json_member(model, "end_of_word_suffix"), R"("</w>")", "model.end_of_word_suffix");
  if (const json& prefix = json_member(model, "continuing_subword_prefix"); !prefix.is_null())
    expect(prefix, R"("")", "model.continuing_subword_prefix");
  if (const json& dropout = json_member(model, "dropout"); !dropout.is_null())
    expect(dropout, "0", "model.dropout");
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"})
    if (model.contains(key)) expect(model[key], "false", std::string("model.") + key);
  expect(json_member(all, "normalizer"),
         R"({"normalizers":[{"type":"NFC"},{"content":" ","pattern":{"Regex":"\\s+"},"type":"Replace"},)"
         R"({"type":"Lowercase"}],"type":"Sequence"})",
         "normalizer");
  // Some versions have the special tokens in the pattern too.
  constexpr std::string_view kPattern = R"("'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+")",
                             kNamedFirst = R"(<\|startoftext\|>|<\|endoftext\|>|)";
  const json& steps = json_member(json_member(all, "pre_tokenizer"), "pretokenizers");
  json pattern =
      json_member(json_member(steps.is_array() && !steps.empty() ? steps[0] : steps, "pattern"), "Regex");
  if (pattern.is_string() && pattern.get_ref<const std::string&>().starts_with(kNamedFirst))
    pattern = pattern.get_ref<const std::string&>().substr(kNamedFirst.size());
  expect(pattern, kPattern, "pre_tokenizer.pretokenizers[0].pattern.Regex");
}

void add_tokens(const json::array_t& tokens, const std::string& file, Vocabulary& vocabulary) {
  for (const json& token : tokens)
    vocabulary.add(json_get<std::string>(token, "content", file, "added_tokens."),
                   json_get<int32_t>(token, "id", file, "added_tokens."), file);
}

// Text of a special token: a string, or an object with `content`.
void read_special(const json& from, const std::string& key, const std::string& file, std::string& text) {
  const json& value = json_member(from, key);
  if (value.is_null()) return;
  text = value.is_object() ? json_get<std::string>(value, "content", file, key + ".")
                           : json_get<std::string>(from, key, file);
}

void read_specials(const json& from, const std::string& file, ClipFiles& files) {
  read_special(from, "bos_token", file, files.start.text);
  read_special(from, "eos_token", file, files.end.text);
  read_special(from, "unk_token", file, files.unknown.text);
  read_special(from, "pad_token", file, files.pad.text);
}

void read_length(const json& from, const std::string& file, ClipFiles& files) {
  const json& value = json_member(from, "model_max_length");
  constexpr double kNoLimit = 1e9;  // transformers writes 1e30
  if (value.is_null() || (value.is_number() && value.get<double>() >= kNoLimit)) return;
  if (!JsonType<int64_t>::holds(value) || value.get<int64_t>() < 2 || value.get<int64_t>() > kMostLength)
    throw bad_tokenizer(
        file, fmt::format("expected a whole number from 2 to {}, found {}", kMostLength, json_text(value)))
        .at("key", "model_max_length");
  files.length = value.get<int64_t>();
}

// Tokens that somebody has added (a textual inversion's) have rows in no text encoder of CLIP's.
void refuse_added_tokens(const json& decoder, const std::string& file, const Vocabulary& vocabulary) {
  if (!decoder.is_object()) return;
  for (const auto& [id, token] : decoder.items()) {
    const auto content = json_get<std::string>(token, "content", file, "added_tokens_decoder." + id + ".");
    const auto known = vocabulary.find(content);
    if (!known || std::to_string(*known) != id)
      throw bad_tokenizer(file,
                          fmt::format("\"{}\" is added as id {}, which the vocabulary has not", content, id))
          .at("key", "added_tokens_decoder." + id)
          .hint("added tokens are not supported");
  }
}

}  // namespace

char32_t byte_symbol(uint8_t byte) {
  const auto is_itself = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  if (is_itself(byte)) return byte;
  char32_t others = 0x100;
  for (int b = 0; b < byte; ++b) others += !is_itself(b);
  return others;
}

ClipFiles read_clip_files(const std::string& folder) {
  const auto in_folder = [&](const char* name) { return folder + "/" + name; };
  const std::string vocab = in_folder("vocab.json"), merges = in_folder("merges.txt"),
                    whole = in_folder("tokenizer.json"), config = in_folder("tokenizer_config.json"),
                    map = in_folder("special_tokens_map.json");
  ClipFiles files;
  std::optional<Vocabulary> vocabulary;
  std::string file = vocab;
  if (is_there(vocab) || is_there(merges)) {
    vocabulary.emplace(read_json_object(vocab).get_ref<const json::object_t&>(), vocab);
    files.merges = read_merges(merges, *vocabulary);
  } else if (is_there(whole)) {
    file = whole;
    const json all = read_json_object(whole);
    expect_clip(all, whole);
    const json& model = all["model"];
    vocabulary.emplace(json_get<json::object_t>(model, "vocab", whole, "model."), whole);
    add_tokens(json_get_or<json::array_t>(all, "added_tokens", {}, whole), whole, *vocabulary);
    Merges list(*vocabulary, whole);
    int64_t number = 0;
    for (const json& merge : json_get<json::array_t>(model, "merges", whole, "model.")) {
      if (merge.is_string())
        list.add(merge.get_ref<const std::string&>(), "merge", number++);
      else if (JsonType<std::vector<std::string>>::holds(merge) && merge.size() == 2)
        list.add(merge[0].get<std::string>(), merge[1].get<std::string>(), "merge", number++);
      else
        throw bad_tokenizer(whole, "expected two symbols").at("merge", number);
    }
    files.merges = std::move(list.all);
    read_special(model, "unk_token", whole, files.unknown.text);
  } else {
    throw Error(Exit::no_input, "E_TOKENIZER_NONE",
                "expected vocab.json and merges.txt, or tokenizer.json, found neither")
        .at("file", folder);
  }
  if (is_there(config)) {
    const json values = read_json_object(config);
    read_specials(values, config, files);
    read_length(values, config, files);
    refuse_added_tokens(json_member(values, "added_tokens_decoder"), config, *vocabulary);
  }
  if (is_there(map)) read_specials(read_json_object(map), map, files);
  for (ClipFiles::Special* special : {&files.start, &files.end, &files.unknown, &files.pad}) {
    const auto id = vocabulary->find(special->text);
    if (!id)
      throw bad_tokenizer(file,
                          fmt::format("the special token \"{}\" is not in the vocabulary", special->text));
    special->id = *id;
  }
  files.symbols = std::move(vocabulary->symbols);
  return files;
}

std::string ClipFiles::content_hash() const {
  Digest digest("sha256");
  for (size_t id = 0; id < symbols.size(); ++id)
    if (!symbols[id].empty()) digest.add(fmt::format("{} {}\n", id, json_text(json(symbols[id]))));
  for (const Merge& merge : merges) digest.add(fmt::format("{} {}\n", merge.left, merge.right));
  digest.add(fmt::format("{} {} {} {} {}", start.id, end.id, unknown.id, pad.id, length));
  return digest.hex();
}

void write_clip_files(const ClipFiles& files, const std::string& folder) {
  std::string vocab = "{", merges = "#version: 0.2\n";
  for (size_t id = 0; id < files.symbols.size(); ++id)
    if (!files.symbols[id].empty())
      vocab += fmt::format("{}{}: {}", vocab.size() > 1 ? ", " : "", json_text(json(files.symbols[id])), id);
  vocab += "}";
  for (const ClipFiles::Merge& merge : files.merges)
    merges += fmt::format("{} {}\n", files.symbols[static_cast<size_t>(merge.left)],
                          files.symbols[static_cast<size_t>(merge.right)]);
  const nlohmann::ordered_json specials = {{"bos_token", files.start.text},
                                           {"eos_token", files.end.text},
                                           {"unk_token", files.unknown.text},
                                           {"pad_token", files.pad.text}};
  nlohmann::ordered_json config = {{"tokenizer_class", "CLIPTokenizer"}, {"model_max_length", files.length}};
  config.update(specials);

  make_folders(folder);
  const auto write = [&](const char* name, const std::string& text) {
    replace_file(folder + "/" + name, [&](const std::string& temporary) {
      OutputFile file(temporary);
      file.write(text);
      file.sync_and_close();
    });
  };
  write("vocab.json", vocab);
  write("merges.txt", merges);
  write("tokenizer_config.json", json_text(config, 2) + "\n");
  write("special_tokens_map.json", json_text(specials, 2) + "\n");
}

}  // namespace lockstep
