// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/digit_caption.h"

#include <fmt/format.h>

#include <initializer_list>
#include <string_view>

#include "kernels/core/error.h"
#include "kernels/random/philox.h"

namespace lockstep {
namespace {

// Decisions of one caption, one after the other.
class Dice {
 public:
  Dice(uint64_t seed, int64_t epoch, int64_t sample) : seed_(seed), epoch_(epoch), sample_(sample) {}

  uint32_t below(uint32_t n) {
    if (used_ % 4 == 0) words_ = random4(seed_, stream::kScene, epoch_, sample_, kFirst + used_ / 4);
    return static_cast<uint32_t>(uint64_t{words_.x[used_++ % 4]} * n >> 32);
  }
  bool one_in(uint32_t n) { return below(n) == 0; }
  std::string_view of(std::initializer_list<std::string_view> choices) {
    return choices.begin()[below(static_cast<uint32_t>(choices.size()))];
  }

 private:
  static constexpr int64_t kFirst = 1;  // the scene's own draws come before
  uint64_t seed_;
  int64_t epoch_, sample_, used_ = 0;
  Philox4 words_{};
};

// Words with a space between; empty ones leave none.
std::string joined(std::initializer_list<std::string_view> parts, std::string_view between = " ") {
  std::string text;
  for (std::string_view part : parts)
    if (!part.empty()) text += fmt::format("{}{}", text.empty() ? "" : between, part);
  return text;
}

// As it is spoken: "an orange eight", "an 8", "a one".
std::string with_article(std::string_view noun) {
  const bool vowel =
      std::string_view("aeiou8").find(noun.front()) != std::string_view::npos && !noun.starts_with("one");
  return fmt::format("{} {}", vowel ? "an" : "a", noun);
}

std::string_view colour(int number) { return kColourNames[static_cast<size_t>(number)]; }

constexpr std::string_view kNumbers[] = {"zero", "one", "two",   "three", "four",
                                         "five", "six", "seven", "eight", "nine"};

std::string_view side_names(DigitPlace place) {
  const bool left = place == DigitPlace::top_left || place == DigitPlace::bottom_left;
  return left ? "left" : "right";
}

std::string place_words(DigitPlace place, Dice& dice) {
  if (place == DigitPlace::centre) return std::string(dice.of({"center", "centre", "middle"}));
  const bool top = place == DigitPlace::top_left || place == DigitPlace::top_right;
  return joined({top ? dice.of({"top", "top", "upper"}) : dice.of({"bottom", "bottom", "lower"}),
                 side_names(place), dice.one_in(3) ? "corner" : ""});
}

std::string digit_words(int digit, Dice& dice) {
  const std::string number =
      dice.one_in(3) ? std::to_string(digit) : std::string(kNumbers[static_cast<size_t>(digit)]);
  return joined({dice.of({"", "", "", "", "digit", "number"}), number});
}

std::string paper_words(std::string_view paper, Dice& dice) {
  switch (dice.below(6)) {
    case 0:
      return fmt::format("on {} paper", paper);
    case 1:
      return "on " + with_article(joined({paper, "page"}));
    case 2:
      return fmt::format("on {}", paper);
    case 3:
      return "with " + with_article(joined({paper, "background"}));
    default:
      return "on " + with_article(joined({paper, "background"}));
  }
}

// "in red", behind the digit.
std::string ink_words(std::string_view ink, Dice& dice) {
  return joined({dice.of({"", "", "written", "drawn", "painted"}),
                 dice.of({"in", "in", "with"}) == "in"
                     ? joined({"in", dice.one_in(5) ? dice.of({"the color", "the colour"}) : "", ink})
                     : joined({"with", ink, "ink"})});
}

}  // namespace

std::string caption_of_scene(const DigitScene& scene, uint64_t seed, int64_t epoch, int64_t sample) {
  Dice dice(seed, epoch, sample);
  if (!dice.one_in(4)) return prompt_of_scene(scene);
  const bool all = !dice.one_in(4);
  const auto named = [&] { return all || !dice.one_in(3); };
  const std::string_view ink = named() ? colour(scene.ink) : "";
  const std::string_view paper = named() ? colour(scene.paper) : "";
  const std::string place = named() ? place_words(scene.place, dice) : "";
  const std::string_view small = dice.of({"small", "small", "tiny", "little"});
  const std::string_view large = dice.of({"large", "large", "big", "huge"});
  const std::string_view size = !named() ? "" : scene.size == DigitSize::small ? small : large;
  const std::string digit = digit_words(scene.digit, dice);

  if (dice.one_in(3)) {  // "small red 7, top left, on blue"
    const std::string on = paper.empty()    ? ""
                           : dice.one_in(3) ? joined({paper, dice.of({"background", "paper"})})
                                            : fmt::format("on {}", paper);
    const bool behind = !ink.empty() && dice.one_in(2);
    const std::string noun = behind ? joined({size, digit, "in", ink}) : joined({size, ink, digit});
    return dice.one_in(2) ? joined({noun, on, place}, ", ") : joined({noun, place, on}, ", ");
  }
  const bool behind = !ink.empty() && dice.one_in(3);
  const std::string noun = joined({size, dice.one_in(6) ? "handwritten" : "", behind ? "" : ink, digit});
  const std::string where =
      place.empty()
          ? ""
          : fmt::format("{} the {}", scene.place == DigitPlace::centre ? "in" : dice.of({"at", "in"}), place);
  const std::string on = paper.empty() ? "" : paper_words(paper, dice);
  const bool paper_first = dice.one_in(4);
  return joined({dice.one_in(5) ? dice.of({"a picture of", "an image of"}) : "", with_article(noun),
                 behind ? ink_words(ink, dice) : "", paper_first ? on : where, paper_first ? where : on});
}

std::string prompt_of_scene(const DigitScene& scene) {
  const bool top = scene.place == DigitPlace::top_left || scene.place == DigitPlace::top_right;
  const std::string where =
      scene.place == DigitPlace::centre
          ? "in the centre"
          : fmt::format("at the {} {}", top ? "top" : "bottom", side_names(scene.place));
  return fmt::format("a {} {} {} {} on {} background", name_of(scene.size), colour(scene.ink),
                     kNumbers[static_cast<size_t>(scene.digit)], where, with_article(colour(scene.paper)));
}

}  // namespace lockstep
