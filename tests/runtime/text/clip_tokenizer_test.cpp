// SPDX-License-Identifier: Apache-2.0
// CLIP's tokenizer against transformers' (tests/golden/make_clip_tokenizer.py).
#include "runtime/text/clip_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/text/unicode.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::clip_tokenizer_test {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::read_file;
using testing::TestFolder;
using testing::write_file;
using Ids = std::vector<int32_t>;

const std::string kGolden = LOCKSTEP_SOURCE_DIR "/tests/golden/clip_tokenizer";
const std::string kSmall = LOCKSTEP_SOURCE_DIR "/configs/data/clip_small";

const ClipTokenizer& clip() {
  static const ClipTokenizer tokenizer(kGolden);
  return tokenizer;
}

void copy_folder(const std::string& from, const std::string& to) {
  constexpr auto kOver = std::filesystem::copy_options::overwrite_existing;
  std::filesystem::copy(from, to, kOver | std::filesystem::copy_options::recursive);
}

TEST(ClipTokenizer, MakesTheTokensOfTransformers) {
  const json golden = json::parse(read_file(kGolden + ".json"));
  ASSERT_GT(golden["cases"].size(), 220U);
  for (const json& c : golden["cases"]) {
    const auto text = c["text"].get<std::string>();
    EXPECT_EQ(clip().encode(text), c["ids"].get<Ids>()) << c;
    EXPECT_EQ(clip().encode(text, SpecialTokens::as_text), c["plain"].get<Ids>()) << c;
    const auto expected = c["padded"].get<Ids>();
    Ids padded(expected.size());
    const std::string cut_off = clip().tokens(text, padded);
    EXPECT_EQ(padded, expected) << c;
    EXPECT_EQ(cut_off.empty(), c["ids"].size() + 2 <= expected.size()) << c;
  }
}

TEST(ClipTokenizer, SaysWhatItIs) {
  EXPECT_EQ(clip().length(), 77);
  EXPECT_EQ(clip().vocabulary_size(), 49408);
  EXPECT_EQ(clip().start_id(), 49406);
  EXPECT_EQ(clip().end_id(), 49407);
  EXPECT_EQ(clip().pad_id(), 49407);
  EXPECT_EQ(clip().symbol(2368), "cat</w>");
}

TEST(ClipTokenizer, SaysWhatItCutOff) {
  Ids ids(5);
  EXPECT_EQ(clip().tokens("a photo of a caf\u00e9", ids), "a café");
  EXPECT_EQ(ids, (Ids{49406, 320, 1125, 539, 49407}));
  EXPECT_EQ(clip().tokens("a photo of", ids), "");
  EXPECT_EQ(ids, (Ids{49406, 320, 1125, 539, 49407}));
  Ids two(2);
  EXPECT_EQ(clip().tokens("a Cat", two), "a cat");
  EXPECT_EQ(two, (Ids{49406, 49407}));
}

TEST(ClipTokenizer, RefusesWhatIsNotUtf8) {
  for (const char* bad : {"caf\xe9", "caf\xc0\x80", "caf\xed\xa0\x80", "caf\xf4\x90\x80\x80", "caf\xc3"})
    expect_error(
        Exit::usage, [&] { (void)clip().encode(bad); }, "E_PROMPT_UTF8", "byte 3");
}

// Of letters, of one byte over and over, of marks in falling order of their classes: a step for each pair of them, or for each
// pair and merge, would take minutes.
TEST(ClipTokenizer, LongPromptsTakeLinearTimeTiming) {
  constexpr int kCharacters = 100'000;
  std::string letters, same(kCharacters, 'a'), marks;
  for (int i = 0; i < kCharacters; ++i) letters += static_cast<char>('a' + i * 7 % 26);
  for (int i = 0; i < kCharacters; ++i) marks += i % 2 ? "\u0323" : "\u0301";
  for (const std::string& text : {letters, same, marks}) {
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_GT(clip().encode(text).size(), 1000U);
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(), 1.0);
  }
}

// Nothing in CLIP's own order of merges tells the heap's order from another one; here the last merge makes a pair of lower
// rank than the one that is waiting.
TEST(ClipTokenizer, MergesTheLowestRankFirstAndThenTheLeftmost) {
  const TestFolder folder;
  json vocab = json::parse(read_file(kSmall + "/vocab.json"));
  for (const char* symbol : {"xy", "xyx", "xx"}) vocab[symbol] = vocab.size();
  write_file(folder.file("vocab.json"), vocab.dump());
  write_file(folder.file("merges.txt"), "xy x\nx y\nx x\n");
  const ClipTokenizer tokenizer(folder.path());
  const auto symbols = [&](const std::string& text) {
    std::string all;
    for (int32_t id : tokenizer.encode(text)) all += tokenizer.symbol(id) + " ";
    return all;
  };
  EXPECT_EQ(symbols("xyxxyz"), "xyx xy z</w> ");
  EXPECT_EQ(symbols("xxxz"), "xx x z</w> ");
  EXPECT_EQ(symbols("xxxxyxyx"), "xx x xyx y x</w> ");
  EXPECT_EQ(tokenizer.length(), 77);  // where nothing says another
}

TEST(ClipTokenizer, SymbolsThatItLacksAreUnknown) {
  const TestFolder folder;
  write_file(folder.file("vocab.json"),
             R"({"a": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3, "!": 4})");
  write_file(folder.file("merges.txt"), "#version: 0.2\n");
  write_file(folder.file("tokenizer_config.json"),
             R"({"model_max_length": 1000000000000000019884624838656, "pad_token": "<|endoftext|>"})");
  write_file(folder.file("special_tokens_map.json"), R"({"pad_token": {"content": "!", "lstrip": false}})");
  const ClipTokenizer tokenizer(folder.path());
  EXPECT_EQ(tokenizer.encode("ab acb"), (Ids{0, 1, 0, 3, 1}));
  EXPECT_EQ(tokenizer.encode("ab!"), (Ids{0, 1, 4}));  // the pad token is a special one
  EXPECT_EQ(tokenizer.encode("ab!", SpecialTokens::as_text), (Ids{0, 1, 3}));
  EXPECT_EQ(tokenizer.pad_id(), 4);
  EXPECT_EQ(tokenizer.length(), 77);
}

TEST(ClipTokenizer, WritesWhatItReads) {
  const TestFolder folder;
  const ClipTokenizer small(kSmall);
  small.save(folder.file("a/tokenizer"));
  const ClipTokenizer again(folder.file("a/tokenizer"));
  EXPECT_EQ(again.encode("It's Seven red CATS \u00e9<|endoftext|>"),
            small.encode("It's Seven red CATS \u00e9<|endoftext|>"));
  EXPECT_EQ(again.length(), 24);
  again.save(folder.file("b"));
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"})
    EXPECT_EQ(read_file(folder.file("a/tokenizer/") + name), read_file(folder.file("b/") + name));
  EXPECT_EQ(json::parse(read_file(folder.file("b/vocab.json"))),
            json::parse(read_file(kSmall + "/vocab.json")));
  EXPECT_EQ(read_file(folder.file("b/merges.txt")), read_file(kSmall + "/merges.txt"));
}

// As transformers 5 writes it.
json whole_file() {
  json all = json::parse(R"({
    "version": "1.0",
    "added_tokens": [],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {
        "Regex": "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
      "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false}})");
  json& model = all["model"];
  model["vocab"] = json::parse(read_file(kSmall + "/vocab.json"));
  for (const char* special : {"<|startoftext|>", "<|endoftext|>"}) {
    all["added_tokens"].push_back({{"id", model["vocab"][special]}, {"content", special}, {"special", true}});
    model["vocab"].erase(special);
  }
  std::istringstream lines(read_file(kSmall + "/merges.txt"));
  std::string left, right;
  std::getline(lines, left);
  while (lines >> left >> right) model["merges"].push_back({left, right});
  return all;
}

TEST(ClipTokenizer, ReadsTokenizerJson) {
  const TestFolder folder;
  const json all = whole_file();
  write_file(folder.file("tokenizer.json"), all.dump());
  const ClipTokenizer small(kSmall), whole(folder.path());
  const std::string text = "It's Seven <|endoftext|> handwritten CATS \u00e9";
  EXPECT_EQ(whole.encode(text), small.encode(text));

  json older = all;  // merges as strings, no special tokens in the pattern
  for (json& merge : older["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  json& regex = older["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
  regex = regex.get<std::string>().substr(std::string(R"(<\|startoftext\|>|<\|endoftext\|>|)").size());
  write_file(folder.file("tokenizer.json"), older.dump());
  EXPECT_EQ(ClipTokenizer(folder.path()).encode(text), small.encode(text));
}

TEST(ClipTokenizer, RefusesAnotherTokenizersFile) {
  const TestFolder folder;
  const auto refused = [&](const std::function<void(json&)>& change, const std::string& what) {
    json all = whole_file();
    change(all);
    write_file(folder.file("tokenizer.json"), all.dump());
    expect_error(
        Exit::data, [&] { ClipTokenizer{folder.path()}; }, "tokenizer.json", what);
  };
  refused([](json& j) { j["model"]["type"] = "Unigram"; }, "model.type");
  refused([](json& j) { j["model"]["end_of_word_suffix"] = nullptr; }, "model.end_of_word_suffix");
  refused([](json& j) { j["model"]["ignore_merges"] = true; }, "model.ignore_merges");
  refused([](json& j) { j["normalizer"]["normalizers"][0]["type"] = "NFKC"; }, "normalizer");
  refused([](json& j) { j.erase("pre_tokenizer"); }, "pre_tokenizer");
  refused([](json& j) { j["model"].erase("vocab"); }, "model.vocab");
  refused([](json& j) { j["model"]["merges"][7] = 3; }, "merge=7");
  refused([](json& j) { j["model"]["merges"][7] = "a b c"; }, "merge=7");
  refused([](json& j) { j["added_tokens"].clear(); }, "<|startoftext|>");
  refused([](json& j) { j["added_tokens"][0]["id"] = 0; }, "same id 0");
}

TEST(ClipTokenizer, NamesWhatIsMissingOrDamaged) {
  const TestFolder folder;
  const auto open = [&] { ClipTokenizer{folder.path()}; };
  expect_error(Exit::no_input, open, "E_TOKENIZER_NONE", folder.path(), "tokenizer.json");
  write_file(folder.file("vocab.json"), "{}");
  expect_error(Exit::data, open, "vocab.json", "empty");
  copy_folder(kSmall, folder.path());
  std::filesystem::remove(folder.file("merges.txt"));
  expect_error(Exit::no_input, open, "merges.txt");

  const auto damaged = [&](const std::string& name, const std::string& text, const auto&... words) {
    copy_folder(kSmall, folder.path());
    write_file(folder.file(name), text);
    expect_error(Exit::data, open, name, words...);
  };
  damaged("vocab.json", "{\n\"a\": 0,\n\"b\": }", "line=3");
  damaged("vocab.json", R"({"a": 1e999})", "number overflow");
  damaged("vocab.json", "[]", "object");
  damaged("vocab.json", R"({"a": -1})", "key=a");
  damaged("vocab.json", R"({"a": 0.5})", "key=a");
  damaged("vocab.json", R"({"a": 99999999})", "key=a");
  damaged("vocab.json", R"({"a": 1, "b": 1})", "same id 1");
  damaged("vocab.json", R"({"": 1})", "empty");
  damaged("merges.txt", "#version: 0.2\na b c\n", "line=2");
  damaged("merges.txt", "#version: 0.2\nab\n", "line=2");
  damaged("merges.txt", "#version: 0.2\n\nr e\n", "line=2");
  damaged("merges.txt", "#version: 0.2\nr \xff\n", "line=2");
  damaged("merges.txt", "#version: 0.2\nr q</w>\n", "line=2", "\"rq</w>\" is not in the vocabulary");
  const std::string merges = read_file(kSmall + "/merges.txt");
  damaged("merges.txt", merges + merges.substr(merges.find('\n') + 1), "stands twice");
  damaged("tokenizer_config.json", R"({"model_max_length": 1})", "model_max_length");
  damaged("tokenizer_config.json", R"({"model_max_length": "long"})", "model_max_length");
  damaged("tokenizer_config.json", R"({"pad_token": 3})", "pad_token");
  damaged("tokenizer_config.json", R"({"added_tokens_decoder": {"681": {"content": "<cat-toy>"}}})",
          "<cat-toy>");
  damaged("special_tokens_map.json", R"({"pad_token": {}})", "pad_token.content");
  copy_folder(kSmall, folder.path());
  write_file(folder.file("special_tokens_map.json"), R"({"pad_token": "[PAD]"})");
  expect_error(Exit::data, open, "[PAD]", "not in the vocabulary");
}

TEST(SmallTokenizer, HasATokenForEachOfItsWords) {
  const ClipTokenizer small(kSmall);
  EXPECT_EQ(small.length(), 24);
  EXPECT_LT(small.vocabulary_size(), 1000);
  std::istringstream words(read_file(kSmall + "/words.txt"));
  int count = 0;
  for (std::string word; words >> word; ++count) {
    const Ids ids = small.encode(word), full = clip().encode(word);
    ASSERT_EQ(ids.size(), 1U) << word;
    ASSERT_EQ(full.size(), 1U) << word;
    EXPECT_EQ(small.symbol(ids[0]), word + "</w>");
    EXPECT_EQ(clip().symbol(full[0]), word + "</w>");
  }
  EXPECT_GT(count, 60);
}

TEST(SmallTokenizer, EncodesAnything) {
  const ClipTokenizer small(kSmall);
  const json golden = json::parse(read_file(kGolden + ".json"));
  for (const json& c : golden["cases"]) {
    const auto text = c["text"].get<std::string>();
    EXPECT_EQ(small.text(small.encode(text)), clip().text(clip().encode(text))) << text;
    const Ids ids = small.encode(text, SpecialTokens::as_text);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), small.end_id()), 0) << text;
  }
}

TEST(Unicode, NormalFormC) {
  const auto utf8 = [](const std::string& text) {
    std::string out;
    for (char32_t c : nfc(text)) append_utf8(c, out);
    return out;
  };
  EXPECT_EQ(utf8("cre\u0301me"), "cr\u00e9me");
  EXPECT_EQ(utf8("a\u0301\u0323"), "\u1ea1\u0301");       // the dot below comes first
  EXPECT_EQ(utf8("a\u0301\u0300"), "\u00e1\u0300");       // one class: as they stand
  EXPECT_EQ(utf8("\u1100\u1161\u11a8"), "\uac01");        // Hangul
  EXPECT_EQ(utf8("\u0958\u212b"), "\u0915\u093c\u00c5");  // excluded from composition; a singleton
  EXPECT_EQ(utf8("\u0301a"), "\u0301a");                  // a mark without a letter
  EXPECT_EQ(utf8("plain \xF0\x9F\x98\x80"), "plain \xF0\x9F\x98\x80");
}

}  // namespace
}  // namespace lockstep::clip_tokenizer_test
