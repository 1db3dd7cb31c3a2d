// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/fields.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <sstream>

#include "kernels/core/error.h"
#include "runtime/files/json_text.h"

namespace lockstep::serve {
namespace {

using nlohmann::json;
using Kind = Field::Kind;

constexpr Field kOwnFields[] = {
    {"model", Kind::text, "which of the models that are served; the first where nothing is said"},
    {"inputs", Kind::texts,
     "of a classifier: pictures in base64; of a model that reads text: the prompt by another name"},
    {"prompt", Kind::texts, "of a model that reads text: what to draw"},
    {"negative_prompt", Kind::text, "what guidance leads away from"},
    {"class", Kind::texts, "a class's name, or several: pictures of each in turn"},
    {"num_images_per_prompt", Kind::whole, "pictures of each prompt or class", 1, 4096},
    {"num_inference_steps", Kind::whole, "steps from noise to picture", 1, 1000},
    {"guidance_scale", Kind::number, "how far the prompt or class leads; 1: as the model has it", 0, 100},
    {"sampler", Kind::text, "ddim, ddpm, pndm, dpm_solver, euler or euler_ancestral"},
    {"eta", Kind::number, "ddim's share of noise in each step", 0, 1},
    {"seed", Kind::seed, "the same seed draws the same pictures; -1: a random one"},
    {"height", Kind::whole, "pixels", 1, 65500},
    {"width", Kind::whole, "pixels", 1, 65500},
    {"format", Kind::text, "png or jpeg"},
    {"stream", Kind::flag, "the answer is a stream of events"},
    {"partial_images", Kind::whole, "pictures on their way, in such a stream", 0, 1000},
    {"parameters", Kind::object, "an object in which fields may stand too"},
};

const Field& own_field(const char* name) {
  const auto it = std::find_if(std::begin(kOwnFields), std::end(kOwnFields),
                               [&](const Field& f) { return std::string_view(f.name) == name; });
  LOCKSTEP_ASSERT(it != std::end(kOwnFields), "{} is read, and is no field of the table", name);
  return *it;
}

}  // namespace

std::vector<std::string> words_of(const char* only) {
  std::istringstream text(only);
  return {std::istream_iterator<std::string>(text), {}};
}

std::span<const Field> own_fields() { return kOwnFields; }

Fields::Fields(const json& body) : body_(body) {
  if (const auto p = body.find("parameters"); p != body.end()) {
    if (!p->is_object()) throw Refusal{400, "is no object", "parameters"};
    parameters_ = *p;
  }
  known_ = {"parameters", "model"};  // the second is read by named_model()
}

const json* Fields::find(const char* name) {
  known_.emplace_back(own_field(name).name);
  const json* found = nullptr;
  for (const json* part : std::array<const json*, 2>{&body_, &parameters_})
    if (const auto it = part->find(name); it != part->end() && !it->is_null()) {
      if (found) throw Refusal{400, "is given twice", name};
      found = &*it;
    }
  return found;
}

int64_t Fields::whole(const char* name, int64_t fallback, int64_t most) {
  const json* j = find(name);
  if (!j) return fallback;
  const auto least = static_cast<int64_t>(own_field(name).least);
  most = std::min(most, static_cast<int64_t>(own_field(name).most));
  const bool fits = j->is_number_integer() && (!j->is_number_unsigned() || j->get<uint64_t>() <= INT64_MAX);
  const int64_t value = fits ? j->get<int64_t>() : least - 1;
  if (!fits || value < least || value > most)
    throw Refusal{400, fmt::format("is a whole number from {} to {}", least, most), name};
  return value;
}

double Fields::number(const char* name, double fallback) {
  const json* j = find(name);
  if (!j) return fallback;
  const Field& f = own_field(name);
  const double value = j->is_number() ? j->get<double>() : NAN;
  if (!(value >= f.least && value <= f.most))
    throw Refusal{400, fmt::format("is a number from {} to {}", f.least, f.most), name};
  return value;
}

bool Fields::flag(const char* name) {
  const json* j = find(name);
  if (j && !j->is_boolean()) throw Refusal{400, "is true or false", name};
  return j && j->get<bool>();
}

std::string Fields::text(const char* name, const std::string& fallback) {
  const json* j = find(name);
  if (j && !j->is_string()) throw Refusal{400, "is a string", name};
  return j ? j->get<std::string>() : fallback;
}

uint64_t Fields::seed() {
  const json* j = find("seed");
  uint64_t seed = 0;
  if (!j || (j->is_number_integer() && !j->is_number_unsigned() && j->get<int64_t>() == -1)) {
    if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1)
      throw Refusal{500, "no random seed could be drawn"};
    return seed >> 11;  // 53 bits, which a client's doubles hold
  }
  // JSON's numbers lose bits above 2^53 in many clients: a string holds them.
  const std::string text = j->is_string() ? j->get<std::string>() : json_text(*j);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || end != text.data() + text.size())
    throw Refusal{400, "is a whole number from 0 to 2^64 - 1, or -1 for a random one", "seed"};
  return seed;
}

std::vector<std::string> Fields::texts(const char* name, int64_t most) {
  const json* j = find(name);
  if (!j) return {};
  std::vector<std::string> all;
  if (j->is_string()) all.push_back(j->get<std::string>());
  if (j->is_array())
    for (const json& one : *j) {
      if (!one.is_string()) throw Refusal{400, "is a string or a list of strings", name};
      all.push_back(one.get<std::string>());
    }
  if (all.empty()) throw Refusal{400, "is a string or a list of strings", name};
  if (static_cast<int64_t>(all.size()) > most)
    throw Refusal{400, fmt::format("has {} entries at most", most), name};
  return all;
}

void Fields::expect_no_others() const {
  for (const json* part : std::array<const json*, 2>{&body_, &parameters_})
    for (const auto& [name, value] : part->items())
      if (std::find(known_.begin(), known_.end(), name) == known_.end())
        throw Refusal{400, "is no field that this model knows", utf8_text(name)};
}

}  // namespace lockstep::serve
