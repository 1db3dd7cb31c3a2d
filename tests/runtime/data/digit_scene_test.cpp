// SPDX-License-Identifier: Apache-2.0
// Scenes, their captions and how they are read, on the real MNIST in configs/data/mnist.
#include "runtime/data/digit_scene.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "runtime/data/dataset.h"
#include "runtime/data/digit_caption.h"
#include "runtime/data/scene_reading.h"
#include "runtime/text/clip_tokenizer.h"
#include "tests/support/files.h"
#include "tests/support/own_cache.h"

namespace lockstep {
namespace {

using Picture = std::array<uint8_t, kSceneBytes>;

class DigitScenes : public ::testing::Test {
 protected:
  static std::shared_ptr<const ImageSet> digits() {
    DatasetConfig c;
    c.dataset = "mnist";
    c.path = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
    c.split = "test";
    return load_dataset(c);
  }
  testing::OwnCache cache;
};

TEST(DigitPairs, EveryDigitInkAndPaperIsSeen) {
  std::map<int, int> digits, inks, other_inks, papers;
  for (int ink = 0; ink < kInks; ++ink) {
    for (int digit = 0; digit < 10; ++digit)
      if (is_held_out_digit(digit, ink)) ++digits[digit], ++inks[ink];
    for (int paper = 0; paper < kPapers; ++paper)
      if (is_held_out_paper(ink, paper)) {
        EXPECT_NE(ink, paper);  // a pair that could be drawn
        ++other_inks[ink], ++papers[paper];
      }
  }
  EXPECT_EQ(digits.size(), 8u);  // of 80 pairs
  EXPECT_EQ(inks.size(), 8u);
  EXPECT_EQ(other_inks.size(), 6u);  // of 64
  EXPECT_EQ(papers.size(), 6u);
  for (const auto& counts : {digits, inks, other_inks, papers})
    for (const auto& [which, count] : counts) EXPECT_EQ(count, 1) << which;
}

TEST(DigitPairs, TrainingShowsAllButTheHeldOutAndTheOthersOnlyThem) {
  std::set<std::pair<int, int>> inks, papers;
  std::map<DigitPlace, int> places;
  std::map<DigitSize, int> sizes;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const DigitScene s = scene_of(7, 2, i, i % 10, ScenePairs::seen);
    ASSERT_FALSE(is_held_out(s));
    ASSERT_NE(s.ink, s.paper);
    ASSERT_EQ(s.digit, i % 10);
    inks.emplace(s.digit, s.ink), papers.emplace(s.ink, s.paper);
    ++places[s.place], ++sizes[s.size];
    ASSERT_TRUE(is_held_out(scene_of(7, 2, i, i % 10, ScenePairs::held_out)));
  }
  EXPECT_EQ(inks.size(), 72u);
  EXPECT_EQ(papers.size(), 58u);
  // Six deviations of a binomial count at most.
  for (const auto& [place, count] : places) EXPECT_NEAR(count, kCount / 5.0, 6 * 57) << name_of(place);
  for (const auto& [size, count] : sizes) EXPECT_NEAR(count, kCount / 2.0, 6 * 71) << name_of(size);
  int held_out = 0;
  for (int i = 0; i < kCount; ++i) held_out += is_held_out(scene_of(7, 0, i, i % 10, ScenePairs::all));
  EXPECT_GT(held_out, kCount / 8);
  EXPECT_LT(held_out, kCount / 4);
}

TEST(DigitPairs, SeedEpochAndSampleEachMakeAnotherScene) {
  std::set<std::string> texts;
  for (const auto& [seed, epoch, first] : {std::tuple{1, 0, 0}, {2, 0, 0}, {1, 1, 0}, {1, 0, 64}}) {
    std::string text;
    for (int i = first; i < first + 64; ++i) {
      const DigitScene s = scene_of(uint64_t(seed), epoch, i, 3, ScenePairs::seen);
      EXPECT_EQ(s, scene_of(uint64_t(seed), epoch, i, 3, ScenePairs::seen));
      text += caption_of_scene(s, uint64_t(seed), epoch, i);
    }
    EXPECT_TRUE(texts.insert(text).second) << seed << " " << epoch << " " << first;
  }
}

// Bits that a run must find again, whichever version made its checkpoint: the source's version changes with them.
TEST_F(DigitScenes, StayAsTheyAre) {
  const auto set = digits();
  const DigitScene s = scene_of(1, 2, 3, set->labels[3], ScenePairs::all);
  Picture picture;
  draw_scene(s, {set->image(3), size_t(kDigitBytes)}, picture);
  uint64_t sum = 0;
  for (uint8_t p : picture) sum = sum * 31 + p;
  EXPECT_EQ(prompt_of_scene(s), "a small red zero at the top right on a purple background");
  EXPECT_EQ(caption_of_scene(s, 1, 2, 3), prompt_of_scene(s));
  EXPECT_EQ(caption_of_scene(s, 1, 2, 8), "small digit zero in red, top right corner, on purple");
  EXPECT_EQ(sum, 11402142237077218831u);
}

TEST_F(DigitScenes, AreInkOverPaper) {
  const auto set = digits();
  for (int i = 0; i < 200; ++i) {
    const DigitScene s = scene_of(5, 0, i, set->labels[size_t(i)], ScenePairs::all);
    Picture picture;
    draw_scene(s, {set->image(i), size_t(kDigitBytes)}, picture);
    const auto& ink = kColours[size_t(s.ink)];
    const auto& paper = kColours[size_t(s.paper)];
    int all_ink = 0, all_paper = 0;
    for (size_t p = 0; p < 1024; ++p) {
      bool is_ink = true, is_paper = true;
      for (size_t c = 0; c < 3; ++c) {
        const uint8_t v = picture[c * 1024 + p];
        ASSERT_GE(v, std::min(ink[c], paper[c]));
        ASSERT_LE(v, std::max(ink[c], paper[c]));
        is_ink &= v == ink[c], is_paper &= v == paper[c];
      }
      all_ink += is_ink, all_paper += is_paper;
      const bool edge = p < 32 || p >= 992 || p % 32 == 0 || p % 32 == 31;
      ASSERT_TRUE(is_paper || !edge) << i << " " << p;
    }
    EXPECT_GE(all_ink, 1);
    EXPECT_GE(all_paper, 1024 - 20 * 20);
  }
  Picture blank;
  draw_scene({.ink = 0, .paper = 7}, std::array<uint8_t, kDigitBytes>{}, blank);
  EXPECT_EQ(std::set<uint8_t>(blank.begin(), blank.end()), std::set<uint8_t>{255});
}

TEST_F(DigitScenes, AreReadAsTheyWereDrawn) {
  const auto set = digits();
  constexpr int kCount = 2000;
  int inks = 0, papers = 0, places = 0, sizes = 0;
  for (int i = 0; i < kCount; ++i) {
    const DigitScene s = scene_of(3, 0, i, set->labels[size_t(i)], ScenePairs::all);
    Picture picture;
    draw_scene(s, {set->image(i), size_t(kDigitBytes)}, picture);
    const SceneReading r = read_scene(picture);
    ASSERT_TRUE(r.found) << i;
    inks += r.ink == s.ink, papers += r.paper == s.paper, places += r.place == s.place,
        sizes += r.size == s.size;
  }
  RecordProperty("inks", inks);
  RecordProperty("places", places);
  EXPECT_EQ(papers, kCount);
  EXPECT_GE(inks, kCount * 99 / 100);
  EXPECT_GE(places, kCount * 99 / 100);
  EXPECT_GE(sizes, kCount * 99 / 100);
}

// Noise of +-16 is more than a trained model leaves.
TEST_F(DigitScenes, AreReadThroughNoise) {
  const auto set = digits();
  constexpr int kCount = 500;
  int all = 0;
  uint32_t state = 1;
  for (int i = 0; i < kCount; ++i) {
    const DigitScene s = scene_of(4, 0, i, set->labels[size_t(i)], ScenePairs::all);
    Picture picture;
    draw_scene(s, {set->image(i), size_t(kDigitBytes)}, picture);
    for (uint8_t& p : picture) {
      state = state * 1664525 + 1013904223;
      p = uint8_t(std::clamp(int(p) + int(state >> 16) % 33 - 16, 0, 255));
    }
    const SceneReading r = read_scene(picture);
    all += r.found && r.ink == s.ink && r.paper == s.paper && r.place == s.place && r.size == s.size;
  }
  EXPECT_GE(all, kCount * 95 / 100);
}

TEST(SceneReading, NothingIsFoundOnBlankPaper) {
  for (int paper = 0; paper < kPapers; ++paper) {
    Picture picture;
    draw_scene({.ink = (paper + 1) % kInks, .paper = paper}, std::array<uint8_t, kDigitBytes>{}, picture);
    const SceneReading r = read_scene(picture);
    EXPECT_FALSE(r.found);
    EXPECT_EQ(r.paper, paper);
  }
}

// What the classifier is given of a large scene, white on black, is the digit, but for a pixel of shift (the middle is that of
// what lies in the box), for what is fainter than the box's edge, and where MNIST's own box isn't 20 pixels.
TEST_F(DigitScenes, TheDigitComesBackAsMnistHasIt) {
  const auto set = digits();
  std::vector<double> off;
  for (int i = 0; i < 500; ++i) {
    Picture picture;
    draw_scene({.digit = set->labels[size_t(i)], .ink = 7, .paper = 8, .size = DigitSize::large},
               {set->image(i), size_t(kDigitBytes)}, picture);
    const SceneReading r = read_scene(picture);
    const auto grey = [&](int64_t y, int64_t x) {
      return y < 0 || x < 0 || y >= 28 || x >= 28 ? 0 : int(r.digit[size_t(y * 28 + x)]);
    };
    double least = 1e9;
    for (int dy = -1; dy <= 1; ++dy)
      for (int dx = -1; dx <= 1; ++dx) {
        double differ = 0, sum = 0;
        for (int y = 0; y < 28; ++y)
          for (int x = 0; x < 28; ++x) {
            const int want = set->image(i)[y * 28 + x];
            differ += std::abs(grey(y + dy, x + dx) - want), sum += want;
          }
        least = std::min(least, differ / sum);
      }
    off.push_back(least);
  }
  std::sort(off.begin(), off.end());
  EXPECT_LT(off[off.size() / 2], 0.02);  // of the digit's own grey
  EXPECT_LT(off.back(), 0.15);
}

const char* const kTokenizer = LOCKSTEP_SOURCE_DIR "/configs/data/clip_small";

// Those that the small tokenizer was made for.
std::set<std::string> known_words() {
  std::istringstream in(testing::read_file(std::string(kTokenizer) + "/words.txt"));
  return {std::istream_iterator<std::string>(in), {}};
}

// The words of a caption, commas among them.
std::vector<std::string> words_of(const std::string& caption) {
  std::vector<std::string> words;
  std::istringstream in(caption);
  for (std::string word; in >> word;) {
    const bool comma = word.back() == ',';
    if (comma) word.pop_back();
    words.push_back(word);
    if (comma) words.emplace_back(",");
  }
  return words;
}

TEST(DigitCaptions, UseTheirWordsAndAllOfThem) {
  std::map<std::string, int> used;
  const std::set<std::string> known = known_words();
  const ClipTokenizer tokenizer(kTokenizer);
  std::array<int32_t, 24> tokens{};
  size_t longest = 0;
  for (int i = 0; i < 20000; ++i) {
    const DigitScene s = scene_of(9, 0, i, i % 10, ScenePairs::all);
    for (const std::string& caption : {caption_of_scene(s, 9, 0, i), prompt_of_scene(s)}) {
      const auto words = words_of(caption);
      for (size_t w = 1; w < words.size(); ++w) {
        static const std::set<std::string> kVowels = {"orange", "eight", "8", "image"};
        ASSERT_TRUE(words[w - 1] != "an" || kVowels.contains(words[w])) << caption;
        ASSERT_TRUE(words[w - 1] != "a" || !kVowels.contains(words[w])) << caption;
      }
      longest = std::max(longest, words.size());
      ASSERT_EQ(tokenizer.encode(caption).size(), words.size()) << caption;  // one each
      ASSERT_EQ(tokenizer.tokens(caption, tokens), "");
      for (const std::string& word : words) {
        EXPECT_TRUE(word == "," || known.contains(word)) << caption;
        ++used[word];
      }
    }
  }
  EXPECT_LE(longest, 22u);
  for (const std::string& word : known) EXPECT_TRUE(word == "and" || used[word] > 20) << word;
}

TEST(DigitCaptions, SayWhatTheSceneShows) {
  static const char* kNames[] = {"zero", "one", "two",   "three", "four",
                                 "five", "six", "seven", "eight", "nine"};
  int inks = 0, papers = 0, places = 0, sizes = 0, full = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const DigitScene s = scene_of(11, 1, i, i % 10, ScenePairs::all);
    const std::string caption = caption_of_scene(s, 11, 1, i);
    std::multiset<std::string> words;
    for (const std::string& word : words_of(caption)) words.insert(word);
    const auto any = [&](std::initializer_list<const char*> of) {
      return std::any_of(of.begin(), of.end(), [&](const char* w) { return words.contains(w); });
    };
    for (int d = 0; d < 10; ++d)
      ASSERT_EQ(any({kNames[d], std::to_string(d).c_str()}), d == s.digit) << caption;
    for (int c = 0; c < kPapers; ++c) {
      const size_t times = words.count(kColourNames[size_t(c)]);
      ASSERT_LE(times, c == s.ink || c == s.paper ? 1u : 0u) << caption;
    }
    const bool small = any({"small", "tiny", "little"}), large = any({"large", "big", "huge"});
    ASSERT_FALSE(s.size == DigitSize::small ? large : small) << caption;
    const bool top = any({"top", "upper"}), bottom = any({"bottom", "lower"}), left = any({"left"}),
               right = any({"right"}), middle = any({"center", "centre", "middle"});
    const std::string place = middle ? "centre"
                              : top || bottom
                                  ? std::string(top ? "top_" : "bottom_") + (left ? "left" : "right")
                                  : "";
    ASSERT_TRUE(place.empty() || place == name_of(s.place)) << caption;
    ASSERT_LE(top + bottom, 1) << caption;
    ASSERT_EQ(left + right, top + bottom) << caption;
    const bool ink = words.contains(kColourNames[size_t(s.ink)]),
               paper = words.contains(kColourNames[size_t(s.paper)]);
    inks += ink, papers += paper, places += !place.empty(), sizes += small || large;
    full += ink && paper && !place.empty() && (small || large);
  }
  // Of the quarter that is no prompt 3/4 + 1/4 (2/3)^4 name all, 3/4 + 1/4 2/3 each. Six deviations at most.
  EXPECT_NEAR(full, kCount * (15 + 16 / 81.0) / 16, 6 * 31);
  for (int named : {inks, papers, places, sizes}) EXPECT_NEAR(named, kCount * 47 / 48.0, 6 * 21);
}

}  // namespace
}  // namespace lockstep
