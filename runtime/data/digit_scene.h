// SPDX-License-Identifier: Apache-2.0
// Pictures of the captioned digits: a handwritten digit in one colour on a paper of another, at one of five places, small or
// large. Pure functions: nothing here depends on rank, thread or the order of calls.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace lockstep {

inline constexpr int64_t kSceneSide = 32;                                         // pixels
inline constexpr int64_t kSceneBytes = 3 * kSceneSide * kSceneSide;               // u8 [3, 32, 32], RGB
inline constexpr int64_t kDigitSide = 28, kDigitBytes = kDigitSide * kDigitSide;  // of MNIST, white on black

enum class DigitPlace { centre, top_left, top_right, bottom_left, bottom_right };
enum class DigitSize { small, large };
inline constexpr int kInks = 8, kPapers = 9, kPlaces = 5, kSizes = 2;

// Red, orange, yellow, green, blue, purple, pink, white, black: the first kInks are inks, all are papers.
inline constexpr std::array<const char*, kPapers> kColourNames = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black"};
// sRGB. Any two are 116 apart at least (Euclidean distance).
inline constexpr std::array<std::array<uint8_t, 3>, kPapers> kColours = {{{205, 15, 25},
                                                                          {250, 125, 0},
                                                                          {255, 235, 40},
                                                                          {15, 140, 60},
                                                                          {40, 90, 235},
                                                                          {125, 25, 165},
                                                                          {255, 130, 190},
                                                                          {255, 255, 255},
                                                                          {0, 0, 0}}};
// "centre", "top_left" ...; "small", "large".
const char* name_of(DigitPlace place);
const char* name_of(DigitSize size);

struct DigitScene {
  int digit = 0, ink = 0, paper = 0;  // ink and paper: colours by their numbers, never the same
  DigitPlace place = DigitPlace::centre;
  DigitSize size = DigitSize::small;
  bool operator==(const DigitScene&) const = default;
};

// The longer side of the digit's box, in pixels, and the middle of that box, in pixels from the left or the top.
int64_t side_of(DigitSize size);
struct ScenePoint {
  int64_t x, y;
};
ScenePoint middle_at(DigitPlace place, DigitSize size);

// ScenePairs that training never shows: 8 of the 80 of digit and ink, no digit or ink twice, and 6 of the 64 of ink and paper, no
// ink or paper twice. So each is seen with all others but one at most.
bool is_held_out_digit(int digit, int ink);
bool is_held_out_paper(int ink, int paper);
inline bool is_held_out(const DigitScene& s) {
  return is_held_out_digit(s.digit, s.ink) || is_held_out_paper(s.ink, s.paper);
}

enum class ScenePairs { seen, held_out, all };  // held_out: at least one of the two
// What is around a digit, uniformly among the pairs of ink and paper that `pairs` leaves it, the places and the sizes.
DigitScene scene_of(uint64_t seed, int64_t epoch, int64_t sample, int digit, ScenePairs pairs);

// mnist: u8 [28, 28]; the digit's box is scaled (antialiased bilinear, as runtime/data/fit.h) to the size, its brightest pixel
// is all ink, and grey is ink over paper. Whatever has no pixel brighter than 63 is all paper. picture: u8 [3, 32, 32].
void draw_scene(const DigitScene& scene, std::span<const uint8_t> mnist, std::span<uint8_t> picture);

}  // namespace lockstep
