// SPDX-License-Identifier: Apache-2.0
// The APIs that clients have, beside our own: how each says what /invocations says, in its requests, its answers and its
// errors. Sources: OpenAI's API reference of images, AUTOMATIC1111's modules/api.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "launch/serve/body.h"
#include "launch/serve/events.h"
#include "launch/serve/fields.h"

namespace lockstep::serve {

// Pictures that were drawn, or are on their way.
struct Drawn {
  const DrawBody& body;
  const nlohmann::json& asked;          // the fields of /invocations that were asked for
  std::string model;                    // its version
  std::vector<std::string> pictures;    // in base64
  int64_t evaluation = 0, partial = 0;  // of those on their way: after how many, and which of them it is
};

struct Dialect {
  const char* name;
  std::span<const Field> fields;
  HttpResponse (*refusal)(const Refusal& refusal);  // its field is the dialect's own
  nlohmann::ordered_json (*answer)(const Drawn& drawn);
  // Of a stream. `progress` may have no pictures; a name "": that is not said. null: there are no streams.
  Event (*progress)(const Drawn& drawn);
  Event (*completed)(const Drawn& drawn);
  bool one_picture_streams;  // a stream draws one picture
};

extern const Dialect kOwn, kOpenAi, kAutomatic1111;

// The body in the words of /invocations. Refusal (400) for a field that the dialect's table does not have, and for a value
// that asks for what is not supported. The fields that a model does not know, and that say nothing, are gone.
nlohmann::json in_our_words(const Dialect& dialect, const nlohmann::json& body);
// What means another thing to this model: "prompt" is a class to one that knows classes, and no text to one that is told
// nothing; AUTOMATIC1111's eta is not every sampler's. Refusal (400) where it asks for what is not supported.
void fit_to_model(const Dialect& dialect, const Service& service, nlohmann::json& body);
// The refusal with the field in the dialect's words, as it says such things.
HttpResponse refusal_of(const Dialect& dialect, Refusal refusal);

// AUTOMATIC1111's names of samplers, each with ours.
struct SamplerAlias {
  const char *name, *ours;
};
std::span<const SamplerAlias> sampler_aliases();

}  // namespace lockstep::serve
