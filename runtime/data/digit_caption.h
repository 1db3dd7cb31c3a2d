// SPDX-License-Identifier: Apache-2.0
// What is said of a scene: captions by templates, with synonyms and in both spellings, lower case and without a full stop.
#pragma once

#include <string>

#include "runtime/data/digit_scene.h"

namespace lockstep {

// "a small red seven at the top left on a blue background", "7 in red, on blue", "a large digit three". Three of
// four captions are prompt_of_scene(), the others are made by templates: the digit is always named; three of four of them name
// everything else, too, the others each of ink, paper, place and size with probability 2/3. At most 22 words and commas.
std::string caption_of_scene(const DigitScene& scene, uint64_t seed, int64_t epoch, int64_t sample);

// What asks for a scene: everything, in one way: "a small red seven at the top left on a blue background".
std::string prompt_of_scene(const DigitScene& scene);

}  // namespace lockstep
