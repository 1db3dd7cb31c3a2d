// SPDX-License-Identifier: Apache-2.0
// What stands in the body of a request to /invocations. What is wrong is a Refusal that names the field.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/serve/http.h"
#include "launch/serve/models.h"

namespace lockstep::serve {

// In lower case, without parameters.
std::string content_type(const HttpRequest& request);
// A body of application/json, an object; null where it is of another type.
nlohmann::json read_json(const HttpRequest& request);
// "model" in it; "" where it names none.
std::string named_model(const nlohmann::json& body);

// A picture (image/png, image/jpeg) or JSON {"inputs": base64 or a list of it}. Whether it is a list.
bool read_pictures(const HttpRequest& request, const nlohmann::json& body, const ServiceLimits& limits,
                   std::vector<std::string>& pictures);

struct DrawBody {
  diffusion::GenerateRequest request;
  PictureSize size;
  // What the text encoder has no tokens for, a text a prompt and the negative prompt's; "": all fits.
  std::vector<std::string> left_out;
  int64_t evaluations = 0;  // of the model: the steps asked for, or what the sampler makes of them
  bool raw = false;         // Accept asks for a picture instead of JSON
  bool jpeg = false;        // else PNG
  bool stream = false;      // an answer of events, with so many pictures on their way
  int64_t partial_images = 0;
};
// {"prompt": text or list, "negative_prompt", "class": name or list, "num_images_per_prompt", "height", "width", "num_inference_steps", "guidance_scale",
// "seed", "sampler", "format", "stream", "partial_images"}, also under "parameters".
DrawBody read_draw_request(const HttpRequest& request, const nlohmann::json& body, const Service& service);

std::string base64(const std::string& bytes);
// Error as Refusal where it is none.
std::string from_base64(const std::string& text, const std::string& field);

// What a client may know: kind, size, classes, defaults, limits.
nlohmann::ordered_json describe_for_clients(const Served& served);

}  // namespace lockstep::serve
